"""Positions of weights that are computed at run time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm_passes.cpu.emit import Buffer, TirExpr
from tvm_passes.cpu.view import View

Tap = tuple[TirExpr, TirExpr, TirExpr, TirExpr]
"""Output channel, input channel in its group, row and column of a weight."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Position of each weight in memory."""

    view: View
    """Memory layout of the weights' tensor."""
    offset: Callable[[Tap], TirExpr]
    """Returns the offset of a weight."""
    axis: str
    """Axis of the view along which output channels are stored."""

    def load(self, buffer: Buffer, tap: Tap, lanes: int) -> TirExpr:
        """Load the weights of `lanes` output channels from `tap` on, as float32."""
        return self.view.load(buffer, self.offset(tap), lanes, self.axis)

    def has_flat_rows(self, kernel: tuple[int, int]) -> bool:
        """Return whether an output channel's weights are contiguous, in their logical order."""
        height, width = kernel
        view = self.view
        plain = (view.c, view.h, view.w) == (height * width, width, 1)
        return self.axis == "n" and plain and view.chunk == view.block * view.c


def convolution_filters(view: View) -> Filters:
    """Return the positions of a convolution's weights (O, I, height, width)."""
    return Filters(view=view, offset=lambda tap: view.offset(*tap), axis="n")


def matrix_filters(view: View) -> Filters:
    """Return the positions of a matrix (I, O) as weights of a pointwise convolution."""
    return Filters(view=view, offset=lambda tap: view.offset(0, tap[0], 0, tap[1]), axis="c")
