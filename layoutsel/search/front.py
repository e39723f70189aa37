"""All non-dominated networks with their placements, and the choice of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.search.space import Architecture
from tvm_passes.errors import LayoutselError


class NoNetwork(LayoutselError):
    """Limits that no network of the space keeps on this topology."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Additive score of networks: the sum of the choices' scores, and of pairs of neighbours."""

    single: tuple[np.ndarray, ...]
    """Score of each choice, (choices,), by cell."""
    pairs: tuple[np.ndarray, ...] = ()
    """Score of neighbours, (choices, choices of the next cell), by cell; empty without them."""
    base: float = 0.0
    """Score of every network."""

    def gains(self, cell: int, before: int, count: int) -> np.ndarray:
        """Score that each choice of a layer adds, (choices,).

        Parameters
        ----------
        cell
            Number of the cell; -1 for the first convolution, and the number of cells for the head.
        before
            Choice of the layer before.
        count
            Number of choices.
        """
        if not 0 <= cell < len(self.single):
            return np.zeros(count)
        if self.pairs and cell > 0:
            both: np.ndarray = self.single[cell] + self.pairs[cell - 1][before]
            return both
        return self.single[cell]

    def first_of_equals(self, channels: Sequence[int]) -> list[int]:
        """First choice with the same continuations as each choice of a layer, by its channels."""
        if self.pairs:
            return list(range(len(channels)))
        first: dict[int, int] = {}
        return [first.setdefault(one, index) for index, one in enumerate(channels)]


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A network with its placement that no other one dominates."""

    us: float
    """Time, microseconds."""
    score: float
    """Additive score."""
    architecture: Architecture
    """Network."""
    nodes: Mapping[str, str]
    """Node of each part, by its name; see :func:`layoutsel.search.parts.parts_of`."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """Non-dominated networks with placements, in ascending order of time and score."""

    points: tuple[FrontPoint, ...]
    """Points."""
    is_proven: bool
    """True if these are all points: no label was dropped for space."""
    labels: int
    """Number of labels that were kept, of all vertices."""

    def most_accurate(self, most_us: float) -> FrontPoint:
        """Return the point of the largest score within a limit of time.

        Raises
        ------
        NoNetwork
            If even the fastest one takes longer.
        """
        within = [point for point in self.points if point.us <= most_us]
        if not within:
            raise NoNetwork(
                f"no network takes at most {most_us:.4g} us: the fastest takes "
                f"{self.points[0].us:.4g} us"
            )
        return within[-1]

    def weighted(self, per_us: float) -> FrontPoint:
        """Return the point of the largest score minus `per_us` for each microsecond."""
        return max(self.points, key=lambda point: point.score - per_us * point.us)
