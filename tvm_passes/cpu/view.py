"""Positions of a logical NCHW tensor's elements in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Buffer, TirExpr
from tvm_passes.layout import BF16, PLAIN, SPLIT, block_size, order_of, storage_of

ORDERS = (PLAIN, "NHWC", "NCHW4c", "NCHW8c", "NCHW16c", "NCHW32c")
"""Orders that kernels address."""
STORAGES = ("", BF16, SPLIT)
"""Storages that kernels load and store."""


def is_addressed(layout: str) -> bool:
    """Return whether kernels address tensors in a layout; generic code computes in the others."""
    return order_of(layout) in ORDERS and storage_of(layout) in STORAGES


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Channels of a larger tensor, from `first` on, as a tensor."""

    shape: tuple[int, ...]
    """Logical shape of the larger tensor."""
    first: int
    """First channel in the larger tensor."""


@dataclass(frozen=True, kw_only=True)
class Digit:
    """One of several axes that are counted as one, but have different strides."""

    period: int
    """Joint count after which this axis advances."""
    extent: int
    """Extent of this axis."""
    stride: int
    """Stride of this axis, in elements."""

    def offset(self, count: TirExpr) -> TirExpr:
        """Return the offset along this axis at a position of the joint axis."""
        return count // self.period % self.extent * self.stride


@dataclass(frozen=True, kw_only=True)
class View:
    """Strides, in elements of its storage, of a tensor whose channels may be in blocks."""

    n: int
    """Stride between images."""
    block: int
    """Channels per block; all of them for a layout without blocks."""
    chunk: int
    """Stride from one block of channels to the next."""
    c: int
    """Stride between the channels of a block."""
    h: int
    """Stride between rows."""
    w: int
    """Stride between pixels of a row."""
    storage: str = ""
    """Storage, as named by :func:`tvm_passes.layout.storage_of`."""
    low: int = 0
    """Offset of the low half of an element from its high half, in split storage."""
    start: int = 0
    """Offset of the first element."""
    row_digits: tuple[Digit, ...] = ()
    """Axes that h counts together; its own stride is then 0."""
    column_digits: tuple[Digit, ...] = ()
    """Axes that w counts together; its own stride is then 0."""

    def channel(self, c: TirExpr) -> TirExpr:
        """Return the offset of channel `c` of the first pixel of the first image."""
        if self.chunk == self.block * self.c:
            return self.start + c * self.c
        return self.start + (c // self.block) * self.chunk + (c % self.block) * self.c

    def offset(self, n: TirExpr, c: TirExpr, h: TirExpr, w: TirExpr) -> TirExpr:
        """Return the offset of one element."""
        where = n * self.n + self.channel(c) + h * self.h + w * self.w
        for digits, count in ((self.row_digits, h), (self.column_digits, w)):
            for digit in digits:
                where = where + digit.offset(count)
        return where

    def load(self, buffer: Buffer, base: TirExpr, lanes: int = 1, axis: str = "c") -> TirExpr:
        """Load `lanes` elements along `axis` from offset `base` on, as float32."""
        stride = getattr(self, axis)
        if not self.storage:
            return emit.load(buffer, base, lanes, stride)
        if stride == 0 and lanes > 1:
            return emit.splat(self.load(buffer, base, 1, axis), lanes)
        high = emit.widen(emit.load(buffer, base, lanes, stride), lanes)
        if self.storage == BF16:
            return high
        return high + emit.widen(emit.load(buffer, base + self.low, lanes, stride), lanes)

    def store(
        self, buffer: Buffer, value: TirExpr, base: TirExpr, lanes: int = 1, axis: str = "c"
    ) -> None:
        """Store float32 values of `lanes` elements along `axis` from offset `base` on."""
        for index, part in enumerate(self.stored(value, lanes)):
            emit.store(buffer, part, base + index * self.low, lanes, getattr(self, axis))

    def stored(self, value: TirExpr, lanes: int) -> tuple[TirExpr, ...]:
        """Convert float32 values to this storage: themselves, bfloat16 bits, or two halves."""
        if not self.storage:
            return (value,)
        if self.storage == BF16:
            return (emit.narrow(value, lanes),)
        return emit.split(value, lanes)


def four_dimensional(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Return a shape as NCHW; with fewer dimensions, the last is channels, the others are rows.

    ``(M, K)`` and ``(B, S, K)`` become N=1, C=K, H=1, W=the product of the rest.
    """
    if len(shape) == 4:
        return tuple(shape)  # type: ignore[return-value]
    rows = 1
    for dim in shape[:-1]:
        rows *= dim
    return (1, shape[-1] if shape else 1, 1, rows)


def view(shape: Sequence[int], layout: str, within: Slice | None = None) -> View:
    """Return the view of a tensor of logical `shape` in `layout`.

    Plain tensors of other ranks are row-major matrices.

    Parameters
    ----------
    within
        Position in a larger tensor, at the start of a channel block; None for a separate tensor.
    """
    if within is not None:
        whole = view(within.shape, layout)
        return replace(whole, start=whole.channel(within.first))
    _, c, h, w = four_dimensional(shape)
    storage = storage_of(layout)
    halves = 2 if storage == SPLIT else 1
    if len(shape) == 4 and order_of(layout) == PLAIN:
        row, low = w * halves, w if storage == SPLIT else 0
        plane = h * row
        return View(
            n=c * plane, block=c, chunk=c * plane, c=plane, h=row, w=1, storage=storage, low=low
        )
    block = block_size(layout) or c
    pixel, low = block * halves, block if storage == SPLIT else 0
    plane = h * w * pixel
    chunk = plane if block < c else c
    return View(
        n=c // block * plane,
        block=block,
        chunk=chunk,
        c=1,
        h=w * pixel,
        w=pixel,
        storage=storage,
        low=low,
    )


def shuffled(where: View, channels: int, groups: int) -> View:
    """Return the positions of `channels` after a shuffle (see :mod:`tvm_passes.shuffle`).

    The channels must not be in blocks.
    """
    assert where.chunk == where.block * where.c, "asked before"
    return replace(where, block=channels // groups, chunk=where.c, c=groups * where.c)


def broadcast_view(
    shape: Sequence[int], layout: str, full: Sequence[int], *, is_image: bool
) -> View | None:
    """Return the view of an operand of `shape` that broadcasts to `full`, or None.

    Strides are 0 along axes over which it is broadcast.

    Parameters
    ----------
    is_image
        True if the axes are (N, C, …, W); the axes between C and W together count as rows. If
        false, the last axis is the channels, and all others together count as pixels of one row.
    """
    if len(shape) > len(full):
        return None
    padded = (1,) * (len(full) - len(shape)) + tuple(shape)
    if any(dim not in (1, whole) for dim, whole in zip(padded, full, strict=True)):
        return None
    if not is_image:
        own = view(padded, layout) if len(padded) != 4 else view((1, *padded), layout)
        stride, digits = _counted(padded[:-1], full[:-1], own.w)
        c = padded[-1:] != (1,) and bool(padded)
        return replace(
            own, n=0, chunk=own.chunk * c, c=own.c * c, h=0, w=stride, column_digits=digits
        )
    own = view(as_planes(padded), layout)
    stride, digits = _counted(padded[2:-1], full[2:-1], own.h)
    n, c, w = (padded[axis] != 1 for axis in (0, 1, -1))
    varying = replace(own, n=own.n * n, h=stride, w=own.w * w, row_digits=digits)
    return varying if c else replace(varying, block=1, chunk=0, c=0)


def as_planes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``(N, C, D, H, W)`` as ``(N, C, D*H, W)``: an image with the rows of all planes."""
    return (*shape[:2], prod(shape[2:-1]), shape[-1])


def _counted(
    dims: Sequence[int], full: Sequence[int], stride: int
) -> tuple[int, tuple[Digit, ...]]:
    """Return the stride of axes `full` that are counted as one, or digits if no single one exists.

    `dims` are the tensor's extents along these axes, and `stride` is that of its last axis.
    """
    digits: list[Digit] = []
    period = 1
    for dim, whole in zip(reversed(dims), reversed(full), strict=True):
        if dim > 1:
            last = digits[-1] if digits else None
            if last and last.period * last.extent == period:
                digits[-1] = replace(last, extent=last.extent * dim)
            else:
                digits.append(Digit(period=period, extent=dim, stride=stride))
            stride *= dim
        period *= whole
    if not digits:
        return 0, ()
    if digits[0].extent == period:
        return digits[0].stride, ()
    return 0, tuple(digits)
