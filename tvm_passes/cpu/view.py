"""Where the elements of a logical NCHW tensor lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm_passes.cpu.emit import TirExpr
from tvm_passes.layout import block_size


@dataclass(frozen=True, kw_only=True)
class View:
    """Strides, in elements, of a tensor whose channels may come in blocks."""

    n: int
    block: int
    """Channels per block; all of them for a layout without blocks."""
    chunk: int
    """Stride from one block of channels to the next."""
    c: int
    """Stride between the channels of a block."""
    h: int
    w: int

    def channel(self, c: TirExpr) -> TirExpr:
        """Offset of channel `c`."""
        if self.chunk == self.block * self.c:
            return c * self.c
        return (c // self.block) * self.chunk + (c % self.block) * self.c

    def offset(self, n: TirExpr, c: TirExpr, h: TirExpr, w: TirExpr) -> TirExpr:
        """Offset of one element."""
        return n * self.n + self.channel(c) + h * self.h + w * self.w


def four_dimensional(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """A shape as NCHW: of fewer dimensions, the last is the channels and the others are rows.

    ``(M, K)`` and ``(B, S, K)`` become N=1, C=K, H=1, W=the product of the rest.
    """
    if len(shape) == 4:
        return tuple(shape)  # type: ignore[return-value]
    rows = 1
    for dim in shape[:-1]:
        rows *= dim
    return (1, shape[-1] if shape else 1, 1, rows)


def view(shape: Sequence[int], layout: str) -> View:
    """View of a tensor of logical `shape` in `layout`; plain ones of other ranks are row-major matrices."""
    _, c, h, w = four_dimensional(shape)
    if len(shape) != 4 or layout == "NHWC":
        return View(n=h * w * c, block=c, chunk=c, c=1, h=w * c, w=c)
    block = block_size(layout)
    if block:
        return View(n=c * h * w, block=block, chunk=h * w * block, c=1, h=w * block, w=block)
    return View(n=c * h * w, block=c, chunk=c * h * w, c=h * w, h=w, w=1)


def broadcast_view(shape: Sequence[int], layout: str, full: Sequence[int]) -> View | None:
    """View of an operand of `shape` that broadcasts to `full`: stride 0 where it does not vary.

    None where the broadcast does not follow the axes of :class:`View`, such as a per-sequence term of a 3-D tensor.
    """
    if len(shape) > len(full):
        return None
    padded = (1,) * (len(full) - len(shape)) + tuple(shape)
    if len(full) != 4:
        rows, full_rows = padded[:-1], tuple(full[:-1])
        if rows != full_rows and any(dim != 1 for dim in rows):
            return None
        channels = padded[-1] if padded else 1
        varies = channels != 1
        return View(
            n=0,
            block=channels,
            chunk=channels if varies else 0,
            c=int(varies),
            h=0,
            w=channels if rows == full_rows and any(dim != 1 for dim in rows) else 0,
        )
    own = view(padded, layout)
    n, c, h, w = (dim != 1 for dim in padded)
    if not c:
        return View(n=own.n * n, block=1, chunk=0, c=0, h=own.h * h, w=own.w * w)
    return View(n=own.n * n, block=own.block, chunk=own.chunk, c=own.c, h=own.h * h, w=own.w * w)
