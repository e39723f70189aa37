"""Search among candidate thresholds: exact for three exits, coordinate descent for more."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from layoutsel.exits.candidates import ThresholdCandidates
from layoutsel.exits.pattern_times import never_slower

MOST_PAIRS = 1 << 23
"""Largest number of pairs of candidates that are compared at once."""
MOST_OPERATIONS = 1 << 30
"""Largest number of operations of a search, about five seconds."""
_PASSES = 20
"""Operations on each group of samples that comparing the pairs of two exits takes."""
STARTS = 8
"""Number of starts of coordinate descent."""
MOST_SWEEPS = 20
"""Largest number of times that a descent visits all pairs of exits."""
_SAME = 1e-12
"""Relative difference of times that rounding alone makes."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A choice of candidates."""

    time: float
    """Mean time of the samples."""
    losses: int
    """Number of samples that lose."""
    chosen: tuple[int, ...]
    """Index of the candidate of each exit."""


class ThresholdSearch:
    """Search for the candidates with the least mean time among those with few losses.

    Parameters
    ----------
    options
        Candidates of n exits.
    table
        Times by pattern of sure exits, as of :func:`layoutsel.exits.pattern_times.time_table`.
    most_losses
        Largest number of samples that may lose.
    """

    def __init__(self, options: ThresholdCandidates, table: np.ndarray, most_losses: int) -> None:
        self._exits = len(options.sizes)
        # Exits that are always off make up for missing ones, so that three or more remain.
        extra = max(0, 3 - self._exits)
        groups = len(options.weights)
        self._sizes = (*options.sizes, *[1] * extra)
        self._levels = np.hstack([options.levels, np.ones((groups, extra), np.int64)])
        self._misleading = np.hstack([options.misleading, np.zeros((groups, extra), bool)])
        self._table = np.tile(table, 1 << extra)
        self._weights = options.weights
        self._samples = float(options.weights.sum())
        self._most_losses = most_losses
        self._monotone = all(never_slower(table))
        self._tolerance = _SAME * float(table.max())

    @property
    def feasible(self) -> bool:
        """True if the exact search stays within its limits of time and memory."""
        return bool(self._outer_exits())

    def exact(self) -> tuple[int, ...] | None:
        """Find the best candidates of three exits; None if all choices have too many losses.

        Each candidate of one exit leaves a grid of the two others' candidates. They are visited by
        a lower bound of their times, until no bound is below the best time.
        """
        outer = self._outer_exits()[0]
        first, second = (i for i in range(3) if i != outer)
        limits = [self._limits(outer, c, first, second) for c in range(self._sizes[outer])]
        bounds = [self._bound(outer, c, first, second, limit) for c, limit in enumerate(limits)]
        best: _Found | None = None
        for c in np.argsort(bounds, kind="stable"):
            if not np.isfinite(bounds[c]) or (best is not None and bounds[c] >= best.time):
                break
            chosen = [0, 0, 0]
            chosen[outer] = int(c)
            best = self._better(best, self._pair(first, second, chosen, limits[c]))
        return None if best is None else best.chosen

    def descent(self) -> tuple[int, ...] | None:
        """Improve pairs of exits in turn, from several starts; None if all have many losses.

        The search ends when it has taken :data:`MOST_OPERATIONS`, or all pairs were visited twice.
        """
        random = np.random.default_rng(0)
        pairs = list(itertools.combinations(range(self._exits), 2))
        cells = max(self._sizes[first] * self._sizes[second] for first, second in pairs)
        sweep = len(pairs) * (_PASSES * len(self._weights) + cells)
        sweeps = max(2, MOST_OPERATIONS // sweep)
        best: _Found | None = None
        for start in range(STARTS):
            chosen = [0 if start == 0 else int(random.integers(size)) for size in self._sizes]
            while any(chosen) and self._losses(chosen) > self._most_losses:
                chosen = [c // 2 for c in chosen]
            here: _Found | None = None
            for _ in range(min(sweeps, MOST_SWEEPS)):
                sweeps -= 1
                before = here
                for place in random.permutation(len(pairs)):
                    first, second = pairs[place]
                    sizes = (self._sizes[first], self._sizes[second])
                    here = self._better(here, self._pair(first, second, chosen, sizes))
                    chosen = chosen if here is None else list(here.chosen)
                if here is before:
                    break
            best = self._better(best, here)
        return None if best is None else best.chosen

    def _better(self, one: _Found | None, other: _Found | None) -> _Found | None:
        """The faster of two choices, or the one with fewer losses if they are as fast."""
        if one is None or other is None:
            return one or other
        if abs(one.time - other.time) <= self._tolerance:
            return other if other.losses < one.losses else one
        return other if other.time < one.time else one

    def _outer_exits(self) -> list[int]:
        """Exits whose candidates the exact search may visit one by one, the cheapest first."""
        if len(self._sizes) > 3:
            return []
        pairs = [np.prod(self._sizes, dtype=float) / size for size in self._sizes]
        groups = _PASSES * len(self._weights)
        work = [size * (groups + p) for size, p in zip(self._sizes, pairs, strict=True)]
        allowed = [i for i in range(3) if pairs[i] <= MOST_PAIRS and work[i] <= MOST_OPERATIONS]
        return sorted(allowed, key=lambda i: work[i])

    def _sure(self, chosen: list[int]) -> np.ndarray:
        sure: np.ndarray = self._levels <= np.array(chosen)
        return sure

    def _losses(self, chosen: list[int]) -> float:
        """Number of samples that lose."""
        lost = (self._sure(chosen) & self._misleading).any(axis=1)
        return float(self._weights @ lost)

    def _codes(self, sure: np.ndarray) -> np.ndarray:
        """Index of each group's pattern in the table."""
        codes: np.ndarray = sure @ (1 << np.arange(sure.shape[1]))
        return codes

    def _limits(self, outer: int, c: int, first: int, second: int) -> tuple[int, int]:
        """Numbers of candidates of two exits that are possible at a candidate of a third."""
        lost = self._misleading[:, outer] & (self._levels[:, outer] <= c)
        counts = []
        for exit_ in (first, second):
            level = np.where(self._misleading[:, exit_], self._levels[:, exit_], self._sizes[exit_])
            added = np.bincount(level, self._weights * ~lost, self._sizes[exit_] + 1)
            losses = self._weights @ lost + added[:-1].cumsum()
            counts.append(int(np.searchsorted(losses, self._most_losses, side="right")))
        return counts[0], counts[1]

    def _bound(self, outer: int, c: int, first: int, second: int, limits: tuple[int, int]) -> float:
        """Lower bound on the mean time at a candidate of one exit; infinite if it is impossible."""
        if not all(limits):
            return float("inf")
        if not self._monotone:
            return 0.0
        chosen = [0, 0, 0]
        chosen[outer], chosen[first], chosen[second] = c, limits[0] - 1, limits[1] - 1
        return float(self._weights @ self._table[self._codes(self._sure(chosen))] / self._samples)

    def _pair(
        self, first: int, second: int, chosen: list[int], sizes: tuple[int, int]
    ) -> _Found | None:
        """Best candidates of two exits, the first `sizes` of each, at those of the others."""
        others = self._sure(chosen)
        others[:, (first, second)] = False
        codes, lost = self._codes(others), (others & self._misleading).any(axis=1)
        levels = self._levels[:, (first, second)]
        values = [self._table[codes | a << first | b << second] for a, b in _SURE]
        time = _grid(levels, sizes, [self._weights * value for value in values]) / self._samples
        never = np.where(self._misleading[:, (first, second)], levels, np.array(sizes))
        losing = [self._weights * lost, *[self._weights] * 3]
        losses = _grid(never, sizes, losing).round()
        time[losses > self._most_losses] = np.inf
        least = time.min()
        if not np.isfinite(least):
            return None
        as_fast = np.where(time <= least + self._tolerance, losses, np.inf)
        place = np.unravel_index(int(as_fast.argmin()), as_fast.shape)
        made = list(chosen)
        made[first], made[second] = int(place[0]), int(place[1])
        return _Found(
            time=float(time[place]), losses=int(losses[place]), chosen=tuple(made[: self._exits])
        )


_SURE = ((0, 0), (1, 0), (0, 1), (1, 1))
"""Patterns of two exits."""


def _grid(levels: np.ndarray, sizes: tuple[int, int], values: list[np.ndarray]) -> np.ndarray:
    """Sums over samples at each pair of candidates of two exits.

    Inclusion and exclusion: a sample adds its first value, and differences from the candidates on
    that make its exits sure.

    Parameters
    ----------
    levels
        First candidate of the two exits that makes each sample sure, (N, 2).
    sizes
        Numbers of candidates.
    values
        Values of each sample by pattern of the two exits, in the order of ``_SURE``.
    """
    rows, columns = np.minimum(levels, sizes).T
    shape = (sizes[0] + 1, sizes[1] + 1)
    none, first, second, both = values
    joint = np.bincount(
        rows * shape[1] + columns, both - first - second + none, shape[0] * shape[1]
    )
    grid = joint.reshape(shape)[:-1, :-1].cumsum(axis=0).cumsum(axis=1)
    grid += np.bincount(rows, first - none, shape[0])[:-1].cumsum()[:, None]
    grid += np.bincount(columns, second - none, shape[1])[:-1].cumsum()
    total: np.ndarray = grid + none.sum()
    return total
