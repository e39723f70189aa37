"""Runs of equally wide register tiles in a row, and the share of each run that a task computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from tvm.tirx.script import builder as T

from tvm_passes.cpu.emit import TirExpr, bind
from tvm_passes.cpu.tiling import Tiling


@dataclass(frozen=True)
class RowShare:
    """Part of a row of results that a task computes."""

    index: TirExpr
    """Number of the row, over all images."""
    share: TirExpr
    """Number of the share."""


@dataclass(frozen=True, kw_only=True)
class TileRun:
    """Equally wide register tiles next to each other."""

    width: int
    """Pixels of a tile."""
    lefts: tuple[int, ...]
    """First pixel of every tile of the run."""
    first: TirExpr
    """First tile of the share within the run."""
    count: TirExpr
    """Number of tiles of the share."""


def tile_runs(tiling: Tiling, share: TirExpr) -> Iterator[TileRun]:
    """Yield the runs of a row. A share has as many tiles as any other, but not of every run."""
    each = len(tiling.widths) // tiling.shares
    tiles = left = 0
    for width, run in groupby(tiling.widths):
        length = len(list(run))
        first: TirExpr = 0
        count: TirExpr = length
        if tiling.shares > 1:
            first = bind(T.max(share * each - tiles, 0))
            count = bind(T.max(T.min((share + 1) * each - tiles, length) - first, 0))
        lefts = tuple(left + step * width for step in range(length))
        yield TileRun(width=width, lefts=lefts, first=first, count=count)
        tiles += length
        left += length * width
