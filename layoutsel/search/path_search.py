"""One pass of label setting over the product graph.

A label is a path from the input to a vertex, with its time, its score and the memory that it takes.
Labels at a vertex have the same continuations, so that one that is no better in anything than
another one is dropped (Martins, "On a multicriteria shortest path problem", 1984). Layers are
numbered from input to output, hence every vertex is complete when it is left, and the labels at the
end are all non-dominated ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from layoutsel.search.dominance import non_dominated
from layoutsel.search.front import Front, FrontPoint, Scores
from layoutsel.search.labels import ROUNDING, LayerHistory, NodeMemory, PathLabels
from layoutsel.search.operations import SKIP
from layoutsel.search.parts import HEAD
from layoutsel.search.product_graph import Layer, ProductGraph
from layoutsel.search.required_scores import RequiredScores
from layoutsel.search.space import Architecture

UNGUIDED_LABELS = 300
"""Maximum number of labels of a vertex with memory that are followed without bounds."""
_FEW_LABELS = 10_000
"""Maximum number of labels that reach a node and are extended without comparison."""
_HURRIED_LABELS = 500
"""Maximum number of labels of a vertex after the time limit."""
_Vertex = tuple[int, int]
"""Choice, or the first one of those that have equal continuations; and node."""


@dataclass
class PathSearch:
    """One pass over the layers."""

    graph: ProductGraph
    scores: Scores
    most_us: float
    most_labels: int
    memory: NodeMemory
    """Memory of the nodes whose limits count."""
    deadline: float
    """Time by :func:`time.monotonic` from which on only some labels are kept, seconds."""
    required: RequiredScores | None = None
    """Scores that paths need to be followed; None to follow all."""
    paths: list[list[tuple[int, int]]] = field(default_factory=list)
    """Choice and node in each layer, by point of the front."""
    history: list[LayerHistory] = field(default_factory=list)
    """Choices of the labels of each layer."""
    labels: int = 0
    """Number of labels so far."""
    is_too_large: bool = False
    """True if labels with memory were so many that the pass ended early."""
    is_proven: bool = True
    """False if a label was dropped that might have led to a point."""

    def run(self) -> Front | None:
        """Return the front; None if no network keeps the limits."""
        base = np.full(1, self.scores.base)
        start = PathLabels(np.zeros(1), base, self.memory.start(), np.zeros(1, dtype=int))
        vertices: dict[_Vertex, PathLabels] = {(0, 0): start}
        remaining = self._remaining_us()
        for number, layer in enumerate(self.graph.layers):
            vertices = self._advance(number, layer, vertices, remaining[number])
            if not vertices or self.is_too_large:
                return None
        ends = []
        for (_, node), labels in vertices.items():
            # Memory no longer matters at the end.
            ends.append(
                replace(labels, held=labels.held[:, :, :0]).later(self.graph.return_us[node])
            )
        found = self._reduce(PathLabels.join(ends))
        points = tuple(self._point(found, index) for index in range(len(found.us)))
        return Front(points=points, is_proven=self.is_proven, labels=self.labels)

    def _remaining_us(self) -> list[np.ndarray]:
        """Least time after each layer, by (choices, nodes); zero memory is assumed."""
        least = np.broadcast_to(self.graph.return_us, (1, len(self.graph.nodes)))
        found = [least]
        for layer in reversed(self.graph.layers):
            moved = np.min(
                layer.transfer_us[:, None, :, :]
                + np.where(layer.is_part[..., None], layer.compute_us + least, np.inf)[:, :, None],
                axis=3,
            )
            stays = np.where(layer.is_part[..., None], np.inf, least[None])
            both = np.where(layer.is_legal[..., None], np.minimum(moved, stays), np.inf)
            least = both.min(axis=1)
            found.insert(0, least)
        return found[1:]

    def _advance(
        self,
        number: int,
        layer: Layer,
        vertices: Mapping[_Vertex, PathLabels],
        remaining_us: np.ndarray,
    ) -> dict[_Vertex, PathLabels]:
        """Extend all labels by one layer."""
        groups = self.scores.first_of_equals([one.channels for one in layer.choices])
        made: dict[_Vertex, list[tuple[PathLabels, int]]] = {}
        for before, node, labels in self._arrivals(layer, vertices):
            for choice in np.flatnonzero(layer.is_legal[before] & layer.is_part[before]):
                one = self._extend(number, layer, (before, int(choice), node), labels)
                made.setdefault((groups[choice], node), []).append((one, int(choice)))
        for (before, node), labels in vertices.items():
            for choice in np.flatnonzero(layer.is_legal[before] & ~layer.is_part[before]):
                one = self._scored(number, before, int(choice), labels)
                made.setdefault((groups[choice], node), []).append((one, int(choice)))
        return self._settle(number, made, remaining_us)

    def _arrivals(
        self, layer: Layer, vertices: Mapping[_Vertex, PathLabels]
    ) -> Iterator[tuple[int, int, PathLabels]]:
        """Yield the labels that bring the input to each node: choice before, node, labels."""
        for before in dict.fromkeys(choice for choice, _ in vertices):
            for node in range(len(self.graph.nodes)):
                parts = [
                    vertices[before, source].later(layer.transfer_us[before, source, node])
                    for source in range(len(self.graph.nodes))
                    if (before, source) in vertices
                ]
                joined = PathLabels.join(parts)
                # Required scores leave out most of a few labels at less cost than comparisons.
                is_few = self.required is not None and len(joined.us) <= _FEW_LABELS
                yield before, node, joined if is_few else self._reduce(joined)

    def _extend(
        self, number: int, layer: Layer, edge: tuple[int, int, int], labels: PathLabels
    ) -> PathLabels:
        """Add a part on a node."""
        scored = self._scored(number, edge[0], edge[1], labels)
        held, keeps = self.memory.add(scored.held, layer, edge)
        made = replace(scored, held=held).later(layer.compute_us[edge])
        return made if keeps is None else made[keeps]

    def _scored(self, number: int, before: int, choice: int, labels: PathLabels) -> PathLabels:
        """Add the score of a choice. Layers are the first convolution, the cells and the head."""
        count = len(self.graph.layers[number].choices)
        more = self.scores.gains(number - 1, before, count)[choice]
        return replace(labels, score=labels.score + more)

    def _settle(
        self,
        number: int,
        made: Mapping[_Vertex, Sequence[tuple[PathLabels, int]]],
        remaining_us: np.ndarray,
    ) -> dict[_Vertex, PathLabels]:
        """Keep the non-dominated labels of each vertex, and write the history of the layer."""
        found: dict[_Vertex, PathLabels] = {}
        before, choices, nodes = [], [], []
        rows = 0
        for (group, node), parts in made.items():
            joined = PathLabels.join([one for one, _ in parts])
            choice = np.concatenate([np.full(len(one.us), index) for one, index in parts])
            numbered = replace(joined, row=np.arange(len(joined.us)))
            within = joined.us + remaining_us[group, node] <= self.most_us * (1 + ROUNDING)
            kept = numbered[within]
            kept = replace(kept, held=self.memory.cleared(kept.held, number))
            if self.required is not None:
                kept = kept[self.required.is_enough(number, (group, node), kept, self.memory)]
            kept = self._reduce(kept)
            count = len(kept.us)
            if not count:
                continue
            if self.required is None and len(self.memory.nodes) and count > UNGUIDED_LABELS:
                self.is_too_large = True
                return {}
            before.append(joined.row[kept.row])
            choices.append(choice[kept.row])
            nodes.append(np.full(count, node))
            found[group, node] = replace(kept, row=np.arange(rows, rows + count))
            rows += count
        if found:
            columns = (np.concatenate(one) for one in (before, choices, nodes))
            self.history.append(LayerHistory(*columns))
        self.labels += rows
        return found

    def _reduce(self, labels: PathLabels) -> PathLabels:
        """Drop the labels that another one dominates, and those beyond the limit.

        After the deadline, memory counts as its sum over all nodes.
        """
        columns = labels.held.reshape(len(labels.us), labels.held.shape[1] * labels.held.shape[2])
        columns = columns[:, columns.any(axis=0)]
        most = self.most_labels
        if columns.shape[1] > 1 and time.monotonic() > self.deadline:
            columns, most = columns.sum(axis=1, keepdims=True), min(most, _HURRIED_LABELS)
            self.is_proven = False
        kept = labels[non_dominated(labels.us, labels.score, columns)]
        if len(kept.us) <= most:
            return kept
        self.is_proven = False
        return kept[np.linspace(0, len(kept.us) - 1, most).astype(int)]

    def _point(self, found: PathLabels, index: int) -> FrontPoint:
        """Read a network and its placement back from the history."""
        row = int(found.row[index])
        path: list[tuple[int, int]] = []
        for history in reversed(self.history):
            path.append((int(history.choice[row]), int(history.node[row])))
            row = int(history.before[row])
        path.reverse()
        self.paths.append(path)
        chosen = [
            (layer.choices[choice], node)
            for layer, (choice, node) in zip(self.graph.layers, path, strict=True)
        ]
        cells = self.graph.space.cells
        nodes = {"stem": self.graph.nodes[chosen[0][1]]}
        for cell, (choice, node) in zip(cells, chosen[1:-1], strict=True):
            if choice.operation != SKIP:
                nodes[f"{cell.name}.0-1"] = self.graph.nodes[node]
        nodes[HEAD] = self.graph.nodes[chosen[-1][1]]
        return FrontPoint(
            us=float(found.us[index]),
            score=float(found.score[index]),
            architecture=Architecture(
                channels=tuple(choice.channels for choice, _ in chosen[1:-1]),
                operations=tuple((choice.operation,) for choice, _ in chosen[1:-1]),
            ),
            nodes=nodes,
        )
