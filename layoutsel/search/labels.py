"""Labels of paths through the product graph, and the memory that the paths take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from layoutsel.search.product_graph import Layer, ProductGraph

ROUNDING = 1e-12
"""Relative difference of equal sums that were added in different orders."""
_WEIGHTS, _KEPT, _PEAK = range(3)
"""Weights, kept tensors, and the largest sum so far of kept and other live tensors."""


@dataclass(frozen=True, eq=False)
class PathLabels:
    """Labels of one vertex, or of several."""

    us: np.ndarray
    """Time, (labels,)."""
    score: np.ndarray
    """Score, (labels,)."""
    held: np.ndarray
    """Memory, (labels, 3, limited nodes): weights, kept tensors, and largest sum so far."""
    row: np.ndarray
    """Row in the history, (labels,)."""

    def __getitem__(self, kept: np.ndarray) -> PathLabels:
        return PathLabels(self.us[kept], self.score[kept], self.held[kept], self.row[kept])

    def later(self, us: float) -> PathLabels:
        """Copy of the labels some time later."""
        return replace(self, us=self.us + us)

    @staticmethod
    def join(parts: Sequence[PathLabels]) -> PathLabels:
        """Join labels of several vertices, in order."""
        if len(parts) == 1:
            return parts[0]
        return PathLabels(
            *(
                np.concatenate([getattr(one, name) for one in parts])
                for name in ("us", "score", "held", "row")
            )
        )


@dataclass(frozen=True, eq=False)
class LayerHistory:
    """Choices of all labels of a layer."""

    before: np.ndarray
    """Row of the label of the layer before, (labels,)."""
    choice: np.ndarray
    """Choice, (labels,)."""
    node: np.ndarray
    """Node, (labels,)."""


@dataclass(frozen=True, eq=False)
class NodeMemory:
    """Memory of those nodes whose limits count."""

    graph: ProductGraph
    """Space and topology."""
    nodes: np.ndarray
    """Numbers of the nodes whose limits count, (limited nodes,)."""

    def start(self) -> np.ndarray:
        """Memory of the path without layers."""
        return np.zeros((1, 3, len(self.nodes)))

    def add(
        self, held: np.ndarray, layer: Layer, edge: tuple[int, int, int]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Add a part to the memory of paths.

        Parameters
        ----------
        held
            Memory of the paths; see :attr:`PathLabels.held`.
        layer
            Layer of the part.
        edge
            Choice before, choice, and node.

        Returns
        -------
        tuple
            Memory, and True for the paths that keep the limit; None if all do.
        """
        before, choice, node = edge
        places = np.flatnonzero(self.nodes == node)
        if not len(places):
            return held, None
        place, held = int(places[0]), held.copy()
        held[:, _WEIGHTS, place] += layer.weight_bytes[before, choice]
        held[:, _KEPT, place] += layer.kept_bytes[before, choice]
        live = held[:, _KEPT, place] + layer.live_bytes[before, choice]
        held[:, _PEAK, place] = np.maximum(held[:, _PEAK, place], live)
        most = self.graph.capacity[node] * (1 + ROUNDING)
        return held, held[:, _WEIGHTS, place] + held[:, _PEAK, place] <= most

    def cleared(self, held: np.ndarray, number: int) -> np.ndarray:
        """Forget memory that no later layers can exhaust: there, paths need not be told apart.

        Parameters
        ----------
        held
            Memory of paths.
        number
            Number of their last layer.
        """
        later = self.graph.layers[number + 1 :]
        weights = sum(float(layer.weight_bytes.max()) for layer in later)
        kept = sum(float(layer.kept_bytes.max()) for layer in later)
        live = max((float(layer.live_bytes.max()) for layer in later), default=0.0)
        peak = np.maximum(held[:, _PEAK], held[:, _KEPT] + kept + live)
        is_free = held[:, _WEIGHTS] + weights + peak <= self.graph.capacity[self.nodes]
        return np.where(is_free[:, None, :], 0.0, held)

    def free(self, held: np.ndarray, node: int, later_kept: float) -> np.ndarray:
        """Memory of a node for the weights and kept tensors of later layers, (paths,), bytes.

        Parameters
        ----------
        held
            Memory of paths.
        node
            Number of the node.
        later_kept
            Most bytes of tensors that later layers keep. They may fit into what is live now.
        """
        places = np.flatnonzero(self.nodes == node)
        if not len(places):
            return np.full(len(held), self.graph.capacity[node])
        weights, kept, peak = held[:, :, int(places[0])].T
        found: np.ndarray = (
            self.graph.capacity[node] - weights - np.maximum(peak - later_kept, kept)
        )
        return found

    def exhausted(self, path: Sequence[tuple[int, int]]) -> set[int]:
        """Nodes of the whole graph whose memory a path exceeds; it is given as (choice, node)."""
        every = NodeMemory(self.graph, np.arange(len(self.graph.nodes)))
        held, before, found = every.start(), 0, set()
        for layer, (choice, node) in zip(self.graph.layers, path, strict=True):
            if layer.is_part[before, choice]:
                held, keeps = every.add(held, layer, (before, choice, node))
                if keeps is not None and not keeps[0]:
                    found.add(node)
            before = choice
        return found
