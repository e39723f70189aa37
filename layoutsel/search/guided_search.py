"""Exact fronts with limits of memory whose labels are many: bounds leave out most paths.

A pass follows the paths that may lead beyond a target, and finds all networks beyond it. The first
targets are close to upper bounds of the scores, so that few paths are left. Steps of time whose
target a known network reaches are done: their front is proven. The last target is the front of all
networks so far, hence nothing is missing after it (compare Korf, "Depth-first
iterative-deepening", 1985).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.search.dominance import non_dominated
from layoutsel.search.front import Front, FrontPoint, Scores
from layoutsel.search.labels import NodeMemory
from layoutsel.search.path_search import PathSearch
from layoutsel.search.product_graph import ProductGraph
from layoutsel.search.required_scores import RequiredScores, TimeGrid, best_scores

_DELAYS = (1.03, 1.06, 1.1, 1.2, 1.4, 1.8, 2.5, 5.0, np.inf)
"""Factors of time: a target is at least the upper bound of the score in so much less time."""
_NO_SCORE = -1e30
"""Score without any network."""
_MORE_US = 1.4
"""Time that is told apart, relative to that of the best score by the upper bounds."""


@dataclass
class GuidedSearch:
    """Passes with falling targets."""

    graph: ProductGraph
    """Space and topology."""
    scores: Scores
    """Score to maximise."""
    most_us: float
    """Limit of time, microseconds."""
    most_labels: int
    """Maximum number of labels of a vertex."""
    deadline: float
    """Time by :func:`time.monotonic` from which on only some labels are kept, seconds."""
    known: tuple[FrontPoint, ...]
    """Non-dominated feasible networks so far."""

    def run(self, most_us: float, lost: Sequence[FrontPoint], *, is_whole: bool) -> Front | None:
        """Find the front; None if no network keeps the limits.

        Parameters
        ----------
        most_us
            Time that is enough for most of the front, microseconds.
        lost
            Points of a front with fewer limits that are infeasible; its others are the known ones.
        is_whole
            True if that front is proven.
        """
        grid, best = self._bounds(most_us)
        is_proven, target, labels = is_whole & self._untouched(grid, lost), best, 0
        for planned in _DELAYS:
            delay = np.inf if time.monotonic() > self.deadline else planned
            target = self._target(grid, best, target, delay)
            search = self._pass(grid, np.where(is_proven, np.inf, target))
            found = search.run()
            self._add(() if found is None else found.points)
            labels += search.labels
            # All networks beyond the target are known, hence no network is beyond these ones.
            is_proven |= search.is_proven & (self._known_scores(grid) >= target)
            if np.isinf(delay) or is_proven.all():
                break
        if not self.known:
            return None
        return Front(points=self.known, is_proven=bool(is_proven.all()), labels=labels)

    def _target(
        self, grid: TimeGrid, best: np.ndarray, last: np.ndarray, delay: float
    ) -> np.ndarray:
        """Scores that networks must exceed, at most half as far from the known ones as before."""
        known = self._known_scores(grid)
        if np.isinf(delay):
            return known
        steps = (np.arange(grid.steps) / delay).astype(int)
        earlier = np.where(steps > 0, best[steps], -np.inf)
        target: np.ndarray = np.maximum.reduce([known, earlier, (known + last) / 2])
        return target

    def _bounds(self, most_us: float) -> tuple[TimeGrid, np.ndarray]:
        """Steps of time, and upper bounds of the scores within them."""
        grid = TimeGrid.of(self.graph, self.scores, most_us)
        best = best_scores(self.graph, self.scores, grid)
        enough_us = (np.flatnonzero(best == best[-1])[0] + 1) * grid.unit_us
        grid = TimeGrid.of(self.graph, self.scores, min(_MORE_US * enough_us, self.most_us))
        return grid, best_scores(self.graph, self.scores, grid)

    def _untouched(self, grid: TimeGrid, lost: Sequence[FrontPoint]) -> np.ndarray:
        """True for the steps of time in which the front with fewer limits is feasible."""
        found = np.ones(grid.steps, dtype=bool)
        for point in lost:
            better = (one.us for one in self.known if one.score >= point.score)
            first, last = grid.step(np.array([point.us, min(better, default=np.inf)]))
            found[first : last + 1] = False
        return found

    def _pass(self, grid: TimeGrid, target: np.ndarray) -> PathSearch:
        """Search for networks beyond a target, by the step of their time."""
        # Times are rounded down: a network may count as one of an earlier step.
        needed = np.minimum.accumulate(target[::-1])[::-1]
        return PathSearch(
            graph=self.graph,
            scores=self.scores,
            most_us=self.most_us,
            most_labels=self.most_labels,
            memory=NodeMemory(self.graph, np.flatnonzero(np.isfinite(self.graph.capacity))),
            deadline=self.deadline,
            required=RequiredScores(self.graph, self.scores, grid, needed),
        )

    def _known_scores(self, grid: TimeGrid) -> np.ndarray:
        """Best known score at the beginning of each step."""
        ends = np.array([one.us for one in self.known])
        scores = np.array([_NO_SCORE, *(one.score for one in self.known)])
        found: np.ndarray = scores[np.searchsorted(ends, grid.us, side="right")]
        return found

    def _add(self, points: Iterable[FrontPoint]) -> None:
        found = (*self.known, *points)
        us, score = (np.array([getattr(one, name) for one in found]) for name in ("us", "score"))
        kept = non_dominated(us, score, np.zeros((len(found), 0)))
        self.known = tuple(found[index] for index in kept)
