"""Least scores with which paths may still lead beyond a front, for networks with memory limits.

A table for each layer holds the score that a path needs by its vertex, its time, and the free
memory of its node. Rounded times and memory make a path need less, never more. The tables are
relaxed as well: a node that a path enters again counts as empty, but layers in a row on one node
share its memory, as in the ng-route relaxation (Baldacci, Mingozzi and Roberti, "New route
relaxation and pricing strategies for the vehicle routing problem", 2011).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from layoutsel.search.front import Scores
from layoutsel.search.labels import NodeMemory, PathLabels
from layoutsel.search.product_graph import Layer, ProductGraph

_TIMES, _UNITS = 512, 192
"""Maximum number of steps of time, and of the free memory of a node."""
_WORK = 5_000_000
"""Maximum number of entries that are computed for a layer; there are fewer steps if needed."""
_ROUNDING = 1e-9
"""Share of a step by which sizes are rounded in favour of a path."""


@dataclass(frozen=True)
class TimeGrid:
    """Equal steps of time from 0 on; the last one has no end."""

    most_us: float
    """Beginning of the last step, microseconds."""
    steps: int
    """Number of steps."""

    @classmethod
    def of(cls, graph: ProductGraph, scores: Scores, most_us: float) -> TimeGrid:
        """Steps up to a time, as many as tables of a graph may have."""
        edges = [
            len(set(groups)) * len(layer.choices)
            for groups, layer in zip(_groups(graph, scores), graph.layers, strict=False)
        ]
        share = _WORK / (max(edges) * len(graph.nodes) * _TIMES * _UNITS)
        return cls(most_us, max(16, int(_TIMES * min(1.0, share) ** 0.5)))

    @property
    def unit_us(self) -> float:
        """Length of a step, microseconds."""
        return self.most_us / (self.steps - 1)

    @property
    def us(self) -> np.ndarray:
        """Beginning of each step, (steps,)."""
        return np.arange(self.steps) * self.unit_us

    def step(self, us: np.ndarray) -> np.ndarray:
        """Step of each time."""
        found: np.ndarray = np.minimum(us / self.unit_us, self.steps - 1).astype(int)
        return found


@dataclass(frozen=True, eq=False)
class RequiredScores:
    """Scores that paths of a product graph need."""

    graph: ProductGraph
    """Space and topology."""
    scores: Scores
    """Score to maximise."""
    grid: TimeGrid
    """Steps of time."""
    needed: np.ndarray
    """Score that a whole network must exceed, by the step of its time, (steps,), ascending."""

    def is_enough(
        self, number: int, vertex: tuple[int, int], labels: PathLabels, memory: NodeMemory
    ) -> np.ndarray:
        """True for paths that may lead beyond the front.

        Parameters
        ----------
        number
            Number of the last layer of the labels.
        vertex
            Choice and node of the labels.
        labels
            Labels.
        memory
            Memory that they hold.
        """
        choice, node = vertex
        free = memory.free(labels.held, node, self._later_kept[number + 1])
        units = np.clip(self._free_units(free, node), 0, self._units)
        table = self._tables[number + 1][self._groups[number + 1][choice], node]
        enough: np.ndarray = labels.score > table[units, self.grid.step(labels.us)]
        return enough

    @property
    def at_start(self) -> np.ndarray:
        """Score that the path without layers needs, by its time, (steps,)."""
        found: np.ndarray = self._tables[0][0, 0, -1]
        return found

    @cached_property
    def _groups(self) -> list[list[int]]:
        return list(_groups(self.graph, self.scores))

    @cached_property
    def _units(self) -> int:
        """Number of steps of free memory."""
        return max(8, _UNITS * self.grid.steps // _TIMES)

    @cached_property
    def _unit_bytes(self) -> np.ndarray:
        """Size of a step of each node's memory, of which no path needs more than all."""
        most = sum(
            float((layer.weight_bytes + layer.kept_bytes + layer.live_bytes).max())
            for layer in self.graph.layers
        )
        return np.clip(self.graph.capacity, 1.0, max(most, 1.0)) / self._units

    @cached_property
    def _later_kept(self) -> np.ndarray:
        """Most bytes that the layers from each one on keep, (layers + 1,)."""
        kept = [float(layer.kept_bytes.max()) for layer in self.graph.layers]
        return np.append(np.cumsum(kept[::-1])[::-1], 0.0)

    @cached_property
    def _tables(self) -> list[np.ndarray]:
        """Scores that are needed before each layer, (groups, nodes, units + 1, steps)."""
        ends = [self._later(self.needed, us) for us in self.graph.return_us]
        shape = (1, len(ends), self._units + 1, self.grid.steps)
        found = [np.broadcast_to(np.stack(ends)[None, :, None], shape)]
        for number in reversed(range(len(self.graph.layers))):
            found.insert(0, self._before(number, self.graph.layers[number], found[0]))
        return found

    def _before(self, number: int, layer: Layer, after: np.ndarray) -> np.ndarray:
        """Table before a layer, from the one after it."""
        groups = self._groups[number]
        found = np.full((max(groups) + 1, *after.shape[1:]), np.inf)
        for group, best in enumerate(found):
            before = groups.index(group)
            entered = np.full((after.shape[1], after.shape[3]), np.inf)
            gains = self.scores.gains(number - 1, before, len(layer.choices))
            for choice in np.flatnonzero(layer.is_legal[before]):
                later = after[self._groups[number + 1][choice]]
                if not layer.is_part[before, choice]:
                    np.minimum(best, later - gains[choice], out=best)
                    continue
                for node, taken, fresh in self._places(number, layer, (before, int(choice))):
                    us = layer.compute_us[before, choice, node]
                    rest = later[node, : self._units + 1 - taken]
                    placed = self._later(rest, us) - gains[choice]
                    np.minimum(best[node, taken:], placed, out=best[node, taken:])
                    if fresh >= taken:
                        np.minimum(entered[node], placed[fresh - taken], out=entered[node])
            for node, source in np.ndindex(*layer.transfer_us.shape[1:]):
                if node != source:
                    moved = self._later(entered[node], layer.transfer_us[before, source, node])
                    np.minimum(best[source], moved, out=best[source])
        return found

    def _places(
        self, number: int, layer: Layer, edge: tuple[int, int]
    ) -> Iterator[tuple[int, int, int]]:
        """Yield nodes for a part, with the units that it takes, and the free ones if it is first.

        The tensors that are live with the first part stay within the memory to the end.
        """
        size = layer.weight_bytes[edge] + layer.kept_bytes[edge]
        peak = layer.live_bytes[edge] + layer.kept_bytes[edge] - self._later_kept[number]
        for node, capacity in enumerate(self.graph.capacity):
            if not np.isfinite(layer.compute_us[edge][node]):
                continue
            taken = max(0, int(size / self._unit_bytes[node] - _ROUNDING))
            fresh = self._free_units(np.array(capacity - max(peak, 0.0)), node)
            if taken <= self._units:
                yield node, taken, min(int(fresh), self._units)

    def _free_units(self, free: np.ndarray, node: int) -> np.ndarray:
        """Free memory in units, rounded up; units beyond all that count are left out."""
        units = np.minimum(free / self._unit_bytes[node], self._units + 1)
        rounded: np.ndarray = np.ceil(units + _ROUNDING).astype(int)
        return rounded

    def _later(self, table: np.ndarray, us: float) -> np.ndarray:
        """Copy of a table for paths to which some time is added."""
        if not np.isfinite(us):
            return np.full_like(table, np.inf)
        steps = min(int(us / self.grid.unit_us), self.grid.steps - 1)
        last = np.broadcast_to(table[..., -1:], (*table.shape[:-1], steps))
        return np.concatenate([table[..., steps:], last], axis=-1)


def best_scores(graph: ProductGraph, scores: Scores, grid: TimeGrid) -> np.ndarray:
    """Upper bounds of the scores of networks by the step of their time, (steps,)."""
    # A path that begins later has less time left until the last step, which none may reach.
    ended = np.append(np.zeros(grid.steps - 1), np.inf)
    least = RequiredScores(graph, scores, grid, ended).at_start
    return scores.base - np.append(least[-2::-1], least[0])


def _groups(graph: ProductGraph, scores: Scores) -> Iterator[list[int]]:
    """Yield the group with equal continuations of each choice, before each layer."""
    yield [0]
    for layer in graph.layers:
        numbers: dict[int, int] = {}
        firsts = scores.first_of_equals([one.channels for one in layer.choices])
        yield [numbers.setdefault(first, len(numbers)) for first in firsts]
