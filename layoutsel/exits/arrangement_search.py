"""Search for the best arrangement by branch and bound, the smallest lower bound first."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.arrangement_bounds import ArrangementBounds
from layoutsel.exits.arrangement_checks import arrangement_faults
from layoutsel.exits.latencies import LatencyModel

_MARGIN = 1 - 1e-9
"""Factor on the best value at which a bound proves it, as sums differ by their rounding."""


@dataclass(frozen=True, kw_only=True)
class ArrangementOptions:
    """Workers that trunk and branches may have."""

    trunk: tuple[str, ...]
    """Workers of the trunk."""
    branches: tuple[tuple[str | None, ...], ...]
    """Workers of each branch; None if it may be off."""

    def hold(self, arrangement: Arrangement) -> bool:
        """True if `arrangement` is one of these."""
        pairs = zip(arrangement.branches, self.branches, strict=True)
        return arrangement.trunk in self.trunk and all(one in of for one, of in pairs)

    def narrowed(self, place: int | None, workers: Sequence[str | None]) -> ArrangementOptions:
        """Copy with other workers for a branch, or for the trunk if `place` is None."""
        if place is None:
            return replace(self, trunk=tuple(worker for worker in workers if worker is not None))
        branches = list(self.branches)
        branches[place] = tuple(workers)
        return replace(self, branches=tuple(branches))


@dataclass(frozen=True, kw_only=True)
class FoundArrangement:
    """Result of a search."""

    arrangement: Arrangement
    """Best arrangement that was found; among equal ones, one with few exits."""
    value_us: float
    """Its value, microseconds."""
    bound_us: float
    """Lower bound on the value of all arrangements, microseconds."""


class ArrangementSearch:
    """Finds arrangements of one network for one objective; keeps the values that it computed.

    Parameters
    ----------
    model
        Latencies of arrangements.
    answer
        Entry of :data:`layoutsel.exits.answers.ANSWERS`.
    objective
        Entry of :data:`layoutsel.exits.latencies.OBJECTIVES`.
    deadline_s
        Time of :func:`time.monotonic` after which searches return what they have, with a gap.
    """

    def __init__(
        self, model: LatencyModel, *, answer: str, objective: str, deadline_s: float
    ) -> None:
        self._model = model
        self._bounds = ArrangementBounds(model, answer)
        self._objective = objective
        self._deadline_s = deadline_s
        self._costs = model.simulator.costs
        self._cores = {kind.name: kind.cores for kind in self._costs.workers}
        self._values_us: dict[Arrangement, float] = {}

    def value_us(self, arrangement: Arrangement) -> float:
        """Value of the objective, microseconds."""
        found = self._values_us.get(arrangement)
        if found is None:
            found = self._model.value_us(arrangement, self._objective)
            self._values_us[arrangement] = found
        return found

    def is_possible(self, arrangement: Arrangement) -> bool:
        """True if `arrangement` can run."""
        return next(arrangement_faults(arrangement, self._costs), None) is None

    def best(
        self, options: ArrangementOptions, starts: Iterable[Arrangement] = ()
    ) -> FoundArrangement | None:
        """Find the best arrangement; None if none that can run was found.

        Parameters
        ----------
        options
            Workers of each stage.
        starts
            Arrangements to improve before the search; others than those in `options` are ignored.
        """
        best = self._improved(options, [one for one in starts if options.hold(one)])
        heap: list[_Open] = []
        number = itertools.count()
        nodes = [_Node(trunk, ()) for trunk in options.trunk]
        while True:
            for node in nodes:
                if self._fits(node):
                    least_us = self._bounds.value_us(
                        node.trunk, node.decided, options.branches, self._objective
                    )
                    heapq.heappush(heap, (least_us, -len(node.decided), next(number), node))
            if not heap or (best is not None and heap[0][0] >= self.value_us(best) * _MARGIN):
                return self._found(best, math.inf)
            if time.monotonic() > self._deadline_s:
                return self._found(best, heap[0][0])
            node = heapq.heappop(heap)[-1]
            if len(node.decided) == len(options.branches):
                whole = Arrangement(trunk=node.trunk, branches=node.decided)
                best = min((one for one in (best, whole) if one is not None), key=self._rank)
                nodes = []
            else:
                choices = options.branches[len(node.decided)]
                nodes = [_Node(node.trunk, (*node.decided, worker)) for worker in choices]

    def _found(self, best: Arrangement | None, bound_us: float) -> FoundArrangement | None:
        if best is None:
            return None
        value_us = self.value_us(best)
        return FoundArrangement(
            arrangement=best, value_us=value_us, bound_us=min(bound_us, value_us)
        )

    def _improved(
        self, options: ArrangementOptions, starts: Sequence[Arrangement]
    ) -> Arrangement | None:
        """Change one stage of the best start at a time, as long as that makes it better."""
        best = min(filter(self.is_possible, starts), key=self._rank, default=None)
        while best is not None:
            near = filter(self.is_possible, _neighbours(best, options))
            better = min(near, key=self._rank, default=best)
            if self._rank(better) >= self._rank(best):
                break
            best = better
        return best

    def _rank(self, arrangement: Arrangement) -> tuple[float, int]:
        """Order of arrangements: by value, then by the number of exits that run."""
        running = sum(worker is not None for worker in arrangement.branches)
        return self.value_us(arrangement), running

    def _fits(self, node: _Node) -> bool:
        """True if the workers' cores suffice, and each branch has the branches that it needs."""
        used = {node.trunk, *node.decided} - {None}
        if sum(self._cores[name] for name in used if name) > self._costs.cores:
            return False
        last = len(node.decided) - 1
        if last < 0 or node.decided[last] is None:
            return True
        return all(node.decided[other] is not None for other in self._costs.needs[last])


class _Node(NamedTuple):
    """Arrangements that begin alike."""

    trunk: str
    decided: tuple[str | None, ...]
    """Workers of the first branches."""


_Open = tuple[float, int, int, _Node]
"""Node with its bound, microseconds; equal bounds in the order of depth, the deepest first."""


def _neighbours(one: Arrangement, options: ArrangementOptions) -> Iterator[Arrangement]:
    """Arrangements that differ in the worker of one stage."""
    for trunk in options.trunk:
        yield replace(one, trunk=trunk)
    for place, workers in enumerate(options.branches):
        for worker in workers:
            branches = (*one.branches[:place], worker, *one.branches[place + 1 :])
            yield replace(one, branches=branches)
