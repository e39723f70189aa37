"""Taps of a window that lie in the input, along the axes that image rows count."""

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
    """Number of inputs."""
    results: int
    """Number of results."""
    kernel: int
    """Number of taps."""
    stride: int = 1
    """Distance between the inputs of two consecutive results."""
    dilation: int = 1
    """Distance between the inputs of two consecutive taps."""
    pad: int = 0
    """Missing inputs before the first; negative if inputs are skipped."""

    @property
    def is_inside(self) -> bool:
        """True if every tap of every result lies in the input."""
        last = (self.results - 1) * self.stride + (self.kernel - 1) * self.dilation - self.pad
        return self.pad <= 0 and last < self.size


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Taps along one axis that lie in the input, for one result."""

    axis: Axis
    """Axis of the taps."""
    at: TirExpr
    """Index of the result."""
    low: TirExpr
    """First tap."""
    high: TirExpr
    """End of the taps: one more than the last."""

    @staticmethod
    def of(axis: Axis, at: TirExpr) -> Reach:
        """Return the taps of result `at`."""
        if axis.is_inside:
            return Reach(axis=axis, at=at, low=0, high=axis.kernel)
        first, dilation = at * axis.stride - axis.pad, axis.dilation
        low = T.max(0, (dilation - 1 - first) // dilation)
        high = T.min(axis.kernel, (axis.size - first + dilation - 1) // dilation)
        return Reach(axis=axis, at=at, low=bind(low), high=bind(high))


def reach_at(axes: Sequence[Axis], y: TirExpr) -> tuple[Reach, ...]:
    """Return the taps in the input at output row `y`, which counts all `axes`, outermost first."""
    found: list[Reach] = []
    for axis in reversed(axes[1:]):
        found.append(Reach.of(axis, bind(y % axis.results)))
        y = bind(y // axis.results)
    found.append(Reach.of(axes[0], y))
    return tuple(reversed(found))


def enter_taps(reach: Sequence[Reach], loops: ExitStack) -> tuple[TirExpr, TirExpr]:
    """Enter the loops over kernel rows; returns the current kernel row and its input row."""
    row = source = 0
    for one in reach:
        axis = one.axis
        step = loops.enter_context(emit.serial(one.high - one.low))
        tap = bind(step + one.low)
        row = row * axis.kernel + tap
        source = source * axis.size + (one.at * axis.stride + tap * axis.dilation - axis.pad)
    return row, source
