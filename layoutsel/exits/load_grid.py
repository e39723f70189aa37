"""Grid of loads: cells of demand of other work, which a table of plans distinguishes."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from layoutsel.device.core_load import UNKNOWN_KIND, CoreLoad
from tvm_passes.errors import LayoutselError

_MOST_LEVELS = 17
"""Largest number of levels of demand in a default grid."""


@dataclass(frozen=True, kw_only=True)
class LoadGrid:
    """Levels of demand, for each kind of work; a cell is a level of a kind.

    Cells are numbered by kind, then by level. A load belongs to the cell with the nearest level and
    kind; the lower one if two are equally near.

    Raises
    ------
    LayoutselError
        If the levels are not ascending from 0, or there is no core or kind.
    """

    cores: int
    """Number of cores."""
    busy: tuple[float, ...]
    """Numbers of cores that other work would occupy, ascending."""
    streaming: tuple[float, ...] = (UNKNOWN_KIND,)
    """Shares of the work that stream through the main memory, ascending."""

    def __post_init__(self) -> None:
        for name, levels in (("busy", self.busy), ("streaming", self.streaming)):
            rises = all(low < high for low, high in itertools.pairwise((-1.0, *levels)))
            if not levels or not rises or (name == "busy" and levels[0] != 0):
                raise LayoutselError(
                    f"grid of loads: got {name} {list(levels)}; expected ascending numbers, those "
                    "of busy cores from 0"
                )
        if self.cores < 1 or self.busy[-1] > self.cores or self.streaming[-1] > 1:
            raise LayoutselError(
                f"grid of loads: got {self.cores} cores, up to {self.busy[-1]:g} of them busy, and "
                f"up to {self.streaming[-1]:g} streaming; expected at most all cores, and 1"
            )

    @classmethod
    def of_host(cls, cores: int, streaming: Sequence[float] = (UNKNOWN_KIND,)) -> LoadGrid:
        """Make a grid from an idle host to one with as many busy processes as cores.

        Levels are a quarter of a core apart, or more on hosts with many cores. Beside a quarter of
        demand, several threads already wait for each other.
        """
        count = min(4 * cores + 1, _MOST_LEVELS)
        busy = tuple(cores * level / (count - 1) for level in range(count))
        return cls(cores=cores, busy=busy, streaming=tuple(streaming))

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.busy) * len(self.streaming)

    def load(self, cell: int) -> CoreLoad:
        """Load in the middle of a cell; it occupies the last cores."""
        kind, level = divmod(cell, len(self.busy))
        return self.on_last(self.busy[level], self.streaming[kind])

    def on_last(self, busy: float, streaming: float = UNKNOWN_KIND) -> CoreLoad:
        """Load that occupies a number of cores, the last ones.

        Raises
        ------
        LayoutselError
            If the number is not from 0 to the number of cores.
        """
        if not 0 <= busy <= self.cores:
            raise LayoutselError(
                f"load: got {busy:g} busy cores; expected 0 to {self.cores}, the cores of the plan"
            )
        demands = [min(max(busy - core, 0.0), 1.0) for core in range(self.cores)]
        return CoreLoad(busy=tuple(reversed(demands)), streaming=streaming)

    def cell(self, load: CoreLoad) -> int:
        """Cell of a load."""
        kind = _nearest(self.streaming, load.streaming)
        return kind * len(self.busy) + _nearest(self.busy, load.busy_cores)


def borders(levels: Sequence[float]) -> list[float]:
    """Values half-way between successive levels."""
    return [(low + high) / 2 for low, high in itertools.pairwise(levels)]


def _nearest(levels: Sequence[float], value: float) -> int:
    return bisect_left(borders(levels), value)
