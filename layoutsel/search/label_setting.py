"""Exact label setting over the product graph: all non-dominated paths.

A label is a path from the input to a vertex, with its time, its score and the memory that it takes.
Labels at a vertex have the same continuations, so that one that is no better in anything than
another one is dropped (Martins, "On a multicriteria shortest path problem", 1984). Layers are
numbered from input to output, hence every vertex is complete when it is left, and the labels at the
end are all non-dominated ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from layoutsel.search.dominance import non_dominated
from layoutsel.search.front import Front, FrontPoint, NoNetwork, Scores
from layoutsel.search.operations import SKIP
from layoutsel.search.parts import HEAD
from layoutsel.search.product_graph import Layer, LayerChoice, ProductGraph
from layoutsel.search.space import Architecture

MOST_LABELS = 50_000
"""Maximum number of labels of a vertex that are kept."""
_ROUNDING = 1e-12
"""Relative difference of equal memory sizes that were added in different orders."""


def front_of(
    graph: ProductGraph,
    scores: Scores,
    *,
    most_us: float = np.inf,
    most_labels: int = MOST_LABELS,
) -> Front:
    """Find all non-dominated networks with placements.

    Parameters
    ----------
    graph
        Space and topology.
    scores
        Score to maximise, for the cells of the space.
    most_us
        Limit of time, microseconds.
    most_labels
        Maximum number of labels of a vertex. If there are more, some are dropped and the front is
        not proven.

    Raises
    ------
    NoNetwork
        If no network with any placement keeps the limits; names the tightest one.
    """
    search = _Search(graph, scores, most_us, most_labels, _limited(graph))
    found = search.run()
    if found is None:
        raise NoNetwork(_tightest(graph, most_us))
    return found


def _limited(graph: ProductGraph) -> np.ndarray:
    """Nodes whose memory some network exceeds, (nodes,)."""
    most = sum(
        float(np.max(layer.weight_bytes) + np.max(layer.kept_bytes)) for layer in graph.layers
    )
    most += max(float(np.max(layer.live_bytes)) for layer in graph.layers)
    return np.flatnonzero(graph.capacity < most)


def _tightest(graph: ProductGraph, most_us: float) -> str:
    """Describe the limit without which some network would be feasible."""
    empty = Scores(single=())

    def fastest(capacity: np.ndarray) -> Front | None:
        relaxed = replace(graph, capacity=capacity)
        return _Search(relaxed, empty, np.inf, MOST_LABELS, _limited(relaxed)).run()

    within = fastest(graph.capacity)
    if within is not None:
        return (
            f"no network takes at most {most_us:.4g} us: the fastest of the space takes "
            f"{within.points[0].us:.4g} us on this topology"
        )
    for number in _limited(graph):
        capacity = graph.capacity.copy()
        capacity[number] = np.inf
        if fastest(capacity) is not None:
            return (
                f"no network fits the memory of {graph.nodes[number]!r}: got "
                f"{max(graph.capacity[number], 0) / 1e6:.4g} MB; expected more"
            )
    return "no network fits the memory of the nodes: expected more on each of them"


@dataclass(frozen=True, eq=False)
class _Labels:
    """Labels of one vertex, or of several."""

    us: np.ndarray
    """Time, (labels,)."""
    score: np.ndarray
    """Score, (labels,)."""
    held: np.ndarray
    """Memory, (labels, 3, limited nodes): weights, kept tensors, and largest sum so far."""
    row: np.ndarray
    """Row in the history, (labels,)."""

    def __getitem__(self, kept: np.ndarray) -> _Labels:
        return _Labels(self.us[kept], self.score[kept], self.held[kept], self.row[kept])

    def later(self, us: float) -> _Labels:
        """Copy of the labels some time later."""
        return replace(self, us=self.us + us)

    @staticmethod
    def join(parts: Sequence[_Labels]) -> _Labels:
        if len(parts) == 1:
            return parts[0]
        return _Labels(
            *(
                np.concatenate([getattr(one, name) for one in parts])
                for name in ("us", "score", "held", "row")
            )
        )


_Vertex = tuple[int, int]
"""Choice, or the first one of those that have equal continuations; and node."""


@dataclass(frozen=True, eq=False)
class _History:
    """Choices of all labels of a layer."""

    before: np.ndarray
    """Row of the label of the layer before, (labels,)."""
    choice: np.ndarray
    """Choice, (labels,)."""
    node: np.ndarray
    """Node, (labels,)."""


@dataclass
class _Search:
    """One pass over the layers."""

    graph: ProductGraph
    scores: Scores
    most_us: float
    most_labels: int
    limited: np.ndarray
    """Nodes whose memory counts."""
    history: list[_History] = field(default_factory=list)
    labels: int = 0
    is_proven: bool = True

    def run(self) -> Front | None:
        """Return the front; None if no network keeps the limits."""
        held = np.zeros((1, 3, len(self.limited)))
        start = _Labels(np.zeros(1), np.full(1, self.scores.base), held, np.zeros(1, dtype=int))
        vertices: dict[_Vertex, _Labels] = {(0, 0): start}
        remaining = self._remaining_us()
        for number, layer in enumerate(self.graph.layers):
            vertices = self._advance(number, layer, vertices, remaining[number])
            if not vertices:
                return None
        ends = []
        for (_, node), labels in vertices.items():
            # Memory no longer matters at the end.
            ends.append(
                replace(labels, held=labels.held[:, :, :0]).later(self.graph.return_us[node])
            )
        found = self._reduce(_Labels.join(ends))
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
        vertices: Mapping[_Vertex, _Labels],
        remaining_us: np.ndarray,
    ) -> dict[_Vertex, _Labels]:
        """Extend all labels by one layer."""
        groups = self._groups(number, layer)
        made: dict[_Vertex, list[tuple[_Labels, int]]] = {}
        for before, node, labels in self._arrivals(layer, vertices):
            for choice in np.flatnonzero(layer.is_legal[before] & layer.is_part[before]):
                one = self._extend(number, layer, (before, int(choice), node), labels)
                made.setdefault((groups[choice], node), []).append((one, int(choice)))
        for (before, node), labels in vertices.items():
            for choice in np.flatnonzero(layer.is_legal[before] & ~layer.is_part[before]):
                one = self._scored(number, before, int(choice), labels)
                made.setdefault((groups[choice], node), []).append((one, int(choice)))
        return self._settle(made, remaining_us)

    def _groups(self, number: int, layer: Layer) -> list[int]:
        """First choice with the same continuations as each choice."""
        if self.scores.pairs:
            return list(range(len(layer.choices)))
        first: dict[int, int] = {}
        return [first.setdefault(one.channels, i) for i, one in enumerate(layer.choices)]

    def _arrivals(
        self, layer: Layer, vertices: Mapping[_Vertex, _Labels]
    ) -> Iterator[tuple[int, int, _Labels]]:
        """Yield the labels that bring the input to each node: choice before, node, labels."""
        for before in dict.fromkeys(choice for choice, _ in vertices):
            for node in range(len(self.graph.nodes)):
                parts = [
                    vertices[before, source].later(layer.transfer_us[before, source, node])
                    for source in range(len(self.graph.nodes))
                    if (before, source) in vertices
                ]
                yield before, node, self._reduce(_Labels.join(parts))

    def _extend(
        self, number: int, layer: Layer, edge: tuple[int, int, int], labels: _Labels
    ) -> _Labels:
        """Add a part on a node."""
        before, choice, node = edge
        scored = self._scored(number, before, choice, labels)
        held = scored.held
        place = np.flatnonzero(self.limited == node)
        if len(place):
            held = held.copy()
            held[:, 0, place] += layer.weight_bytes[before, choice]
            held[:, 1, place] += layer.kept_bytes[before, choice]
            live = held[:, 1, place] + layer.live_bytes[before, choice]
            held[:, 2, place] = np.maximum(held[:, 2, place], live)
        made = replace(scored, held=held).later(layer.compute_us[before, choice, node])
        if not len(place):
            return made
        most = self.graph.capacity[node] * (1 + _ROUNDING)
        return made[(held[:, 0, place] + held[:, 2, place])[:, 0] <= most]

    def _scored(self, number: int, before: int, choice: int, labels: _Labels) -> _Labels:
        """Add the score of a choice. Layers are the first convolution, the cells and the head."""
        cell, scores = number - 1, self.scores
        if not 0 <= cell < len(scores.single):
            return labels
        more = scores.single[cell][choice]
        if scores.pairs and cell > 0:
            more = more + scores.pairs[cell - 1][before, choice]
        return replace(labels, score=labels.score + more)

    def _settle(
        self, made: Mapping[_Vertex, Sequence[tuple[_Labels, int]]], remaining_us: np.ndarray
    ) -> dict[_Vertex, _Labels]:
        """Keep the non-dominated labels of each vertex, and write the history of the layer."""
        found: dict[_Vertex, _Labels] = {}
        before, choices, nodes = [], [], []
        rows = 0
        for (group, node), parts in made.items():
            joined = _Labels.join([one for one, _ in parts])
            choice = np.concatenate([np.full(len(one.us), index) for one, index in parts])
            numbered = replace(joined, row=np.arange(len(joined.us)))
            kept = numbered[joined.us + remaining_us[group, node] <= self.most_us]
            kept = self._reduce(kept)
            count = len(kept.us)
            if not count:
                continue
            before.append(joined.row[kept.row])
            choices.append(choice[kept.row])
            nodes.append(np.full(count, node))
            found[group, node] = replace(kept, row=np.arange(rows, rows + count))
            rows += count
        if found:
            columns = (np.concatenate(one) for one in (before, choices, nodes))
            self.history.append(_History(*columns))
        self.labels += rows
        return found

    def _reduce(self, labels: _Labels) -> _Labels:
        """Drop the labels that another one dominates, and those beyond the limit."""
        kept = labels[non_dominated(labels.us, labels.score, _resources(labels.held))]
        if len(kept.us) <= self.most_labels:
            return kept
        self.is_proven = False
        return kept[np.linspace(0, len(kept.us) - 1, self.most_labels).astype(int)]

    def _point(self, found: _Labels, index: int) -> FrontPoint:
        """Read a network and its placement back from the history."""
        row = int(found.row[index])
        chosen: list[tuple[LayerChoice, int]] = []
        for layer, history in zip(reversed(self.graph.layers), reversed(self.history), strict=True):
            chosen.append((layer.choices[history.choice[row]], int(history.node[row])))
            row = int(history.before[row])
        chosen.reverse()
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


def _resources(held: np.ndarray) -> np.ndarray:
    """Memory as columns to be small in, (labels, columns)."""
    return held.reshape(len(held), held.shape[1] * held.shape[2])
