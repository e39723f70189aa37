"""The taps of a window that meet an input, along the axes that the rows of an image count."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import TirExpr, bind


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis that a kernel slides along."""

    size: int
    """Inputs along it."""
    results: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    pad: int = 0
    """Inputs missing before the first."""

    @property
    def is_inside(self) -> bool:
        """Whether every tap of every result meets an input."""
        last = (self.results - 1) * self.stride + (self.kernel - 1) * self.dilation - self.pad
        return self.pad <= 0 and last < self.size


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The taps along one axis that meet an input at one result."""

    axis: Axis
    at: TirExpr
    """Number of the result."""
    low: TirExpr
    high: TirExpr
    """First tap, and the one behind the last."""

    @staticmethod
    def of(axis: Axis, at: TirExpr) -> Reach:
        """The taps at result `at`."""
        if axis.is_inside:
            return Reach(axis=axis, at=at, low=0, high=axis.kernel)
        first, dilation = at * axis.stride - axis.pad, axis.dilation
        low = T.max(0, (dilation - 1 - first) // dilation)
        high = T.min(axis.kernel, (axis.size - first + dilation - 1) // dilation)
        return Reach(axis=axis, at=at, low=bind(low), high=bind(high))


def reach_at(axes: Sequence[Axis], y: TirExpr) -> tuple[Reach, ...]:
    """The taps that meet an input at output row `y`, which counts all `axes`, the outermost first."""
    found: list[Reach] = []
    for axis in reversed(axes[1:]):
        found.append(Reach.of(axis, bind(y % axis.results)))
        y = bind(y // axis.results)
    found.append(Reach.of(axes[0], y))
    return tuple(reversed(found))


def enter_taps(reach: Sequence[Reach], loops: ExitStack) -> tuple[TirExpr, TirExpr]:
    """Enter the loops over kernel rows; gives the present one and the input row that it meets."""
    row = source = 0
    for one in reach:
        axis = one.axis
        step = loops.enter_context(emit.serial(one.high - one.low))
        tap = bind(step + one.low)
        row = row * axis.kernel + tap
        source = source * axis.size + (one.at * axis.stride + tap * axis.dilation - axis.pad)
    return row, source
