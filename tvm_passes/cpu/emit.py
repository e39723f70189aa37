"""Typed helpers over TVM's TIR builder: vectors, flat buffers, register accumulators, loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from tvm_passes.layout import LARGEST_BF16

EMITTED = "layoutsel.emitted"
"""Attribute of the functions of :func:`prim_func`, whose buffers are no larger than necessary."""

TirExpr = Any
"""A TIR expression or a Python integer."""
Buffer = Any
"""A TIR buffer."""

bind: Callable[[TirExpr], TirExpr] = T.Bind
"""Binds a value to a new variable; returns the variable."""


def splat(value: TirExpr, lanes: int) -> TirExpr:
    """Return a vector with `value` in every lane; `value` itself for one lane."""
    if isinstance(value, float):
        value = tirx.const(value, "float32")
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def ramp(base: TirExpr, lanes: int, stride: int = 1) -> TirExpr:
    """Return the indices of `lanes` elements from `base` on."""
    if stride == 0:
        return splat(base if not isinstance(base, int) else tirx.const(base, "int32"), lanes)
    return base if lanes == 1 else tirx.Ramp(base, stride, lanes)


def load(buffer: Buffer, base: TirExpr, lanes: int = 1, stride: int = 1) -> TirExpr:
    """Load `lanes` elements of a flat buffer."""
    if stride == 0:
        return splat(buffer[base], lanes)
    return buffer[ramp(base, lanes, stride)]


def store(buffer: Buffer, value: TirExpr, base: TirExpr, lanes: int, stride: int = 1) -> None:
    """Store `lanes` elements into a flat buffer."""
    T.buffer_store(buffer, value, [ramp(base, lanes, stride)])


_HIGH = 16
"""Low bits of float32's significand that bfloat16 lacks."""


_CONVERT = "llvm.x86.avx512bf16.cvt"
"""Name prefix of LLVM's conversions to bfloat16."""


def widen(value: TirExpr, lanes: int) -> TirExpr:
    """Convert bits of bfloat16, as uint16, to float32."""
    bits = tirx.Cast(_typed("uint32", lanes), value) << splat(tirx.const(_HIGH, "uint32"), lanes)
    return tirx.reinterpret(_typed("float32", lanes), bits)


ORDERED_LOWEST = -0x7F81
"""Result of :func:`ordered` for minus infinity."""


def ordered(bits: TirExpr, lanes: int) -> TirExpr:
    """Convert bits of bfloat16, as uint16, to int16 values with the same order as the numbers.

    :func:`bits_of` is the inverse.
    """
    return _other_way_round(tirx.reinterpret(_typed("int16", lanes), bits), lanes)


def bits_of(value: TirExpr, lanes: int) -> TirExpr:
    """Convert integers of :func:`ordered` back to bits of bfloat16."""
    return tirx.reinterpret(_typed("uint16", lanes), _other_way_round(value, lanes))


def _other_way_round(value: TirExpr, lanes: int) -> TirExpr:
    """Flip all bits except the sign in negative numbers.

    Negative floats are ordered by distance from zero, negative integers in the other direction.
    """
    value = bind(value)
    sign, rest = (splat(tirx.const(n, "int16"), lanes) for n in (15, 0x7FFF))
    return value ^ ((value >> sign) & rest)


def _within(value: TirExpr, lanes: int) -> TirExpr:
    """Clip `value` to the finite range of bfloat16; NaN stays NaN."""
    most, least = splat(LARGEST_BF16, lanes), splat(-LARGEST_BF16, lanes)
    return T.min(most, T.max(least, value))


def saturated(value: TirExpr, lanes: int) -> TirExpr:
    """Replace finite float32 that would round to an infinite bfloat16 by the largest finite one.

    Additive masks contain such numbers. Infinite ones would yield NaN in a row that is masked
    completely.
    """
    value = bind(value)
    # A comparison of floats: a comparison of their bits takes TVM's simplifier half a minute in
    # some kernels.
    is_finite = T.abs(value) < splat(math.inf, lanes)
    return tirx.Select(is_finite, _within(value, lanes), value)


def narrow(value: TirExpr, lanes: int) -> TirExpr:
    """Round float32 to the nearest bfloat16, as uint16 bits; finite numbers and NaN stay such."""
    return _rounded(bind(saturated(value, lanes)), lanes)


def _rounded(value: TirExpr, lanes: int) -> TirExpr:
    """Round float32 in bfloat16's range, or infinite, to the nearest bfloat16, as uint16 bits."""
    if lanes == 16:
        return T.call_llvm_pure_intrin("uint16x16", f"{_CONVERT}neps2bf16.512", value)
    if lanes == 32:
        low, high = (bind(lanes_of(value, first, 16, 32)) for first in (0, 16))
        return T.call_llvm_pure_intrin("uint16x32", f"{_CONVERT}ne2ps2bf16.512", high, low)
    bits = bind(tirx.reinterpret(_typed("uint32", lanes), value))
    half, one, high = (splat(tirx.const(n, "uint32"), lanes) for n in (0x7FFF, 1, _HIGH))
    rounded = bits + half + ((bits >> high) & one)
    quiet = bits | splat(tirx.const(1 << 22, "uint32"), lanes)
    kept = tirx.Select(value == value, rounded, quiet)  # noqa: PLR0124 - the test for NaN
    return tirx.Cast(_typed("uint16", lanes), kept >> high)


def split(value: TirExpr, lanes: int) -> tuple[TirExpr, TirExpr]:
    """Split float32 into the bits of two bfloat16: the rounded value and the rounded remainder.

    The value is rounded with halves away from zero. The first part is finite; the second is
    infinite where `value` is infinite, so that their sum is not NaN.
    """
    value = bind(saturated(value, lanes))
    half, mask = (splat(tirx.const(n, "uint32"), lanes) for n in (0x8000, 0xFFFF0000))
    bits = bind((tirx.reinterpret(_typed("uint32", lanes), _within(value, lanes)) + half) & mask)
    rounded = bind(tirx.reinterpret(_typed("float32", lanes), bits))
    return _rounded(rounded, lanes), _rounded(bind(value - rounded), lanes)


def _typed(dtype: str, lanes: int) -> str:
    """Return TVM's name of a vector type."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def prefetch(buffer: Buffer, base: TirExpr) -> None:
    """Emit a prefetch of an element's cache line to the second-level cache; it need not exist."""
    address = tirx.address_of(buffer[base])
    read, second_level, data = (tirx.const(number, "int32") for number in (0, 2, 1))
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", address, read, second_level, data))


def lanes_of(value: TirExpr, first: int, count: int, lanes: int) -> TirExpr:
    """Return lanes ``first … first + count - 1`` of a vector of `lanes`."""
    if first == 0 and count == lanes:
        return value
    indices = [tirx.const(lane, "int32") for lane in range(first, first + count)]
    return tirx.Shuffle([value], indices)


def across(vector: TirExpr, lanes: int, combine: Callable[[TirExpr, TirExpr], TirExpr]) -> TirExpr:
    """Reduce the lanes of one vector by `combine`."""
    if lanes == 1:
        return vector
    half = lanes // 2
    low, high = lanes_of(vector, 0, half, lanes), lanes_of(vector, half, half, lanes)
    folded = across(bind(combine(low, high)), half, combine)
    return combine(folded, lanes_of(vector, lanes - 1, 1, lanes)) if lanes % 2 else folded


class Accumulator:
    """A vector in a register: a small buffer that LLVM promotes.

    Buffers of at most one vector stay below TVM's limit for stack allocation, and all their indices
    are constant.
    """

    def __init__(self, lanes: int, dtype: str = "float32") -> None:
        self.lanes = lanes
        self.buffer = T.alloc_buffer((lanes,), dtype)

    @property
    def value(self) -> TirExpr:
        """Current value."""
        return load(self.buffer, 0, self.lanes)

    def set(self, value: TirExpr) -> None:
        """Overwrite the value."""
        store(self.buffer, value, 0, self.lanes)

    def zero(self) -> None:
        """Set every lane to zero."""
        self.set(splat(0.0, self.lanes))


def parallel(extent: int) -> AbstractContextManager[TirExpr]:
    """Return a parallel loop, or a serial one for a single iteration."""
    return T.parallel(0, extent) if extent > 1 else T.serial(0, extent)


def serial(extent: TirExpr) -> AbstractContextManager[TirExpr]:
    """Return a serial loop from zero."""
    return T.serial(0, extent)


MOST_SHARES = 1 << 15
"""Maximum number of shares of :func:`share`.

The code multiplies two numbers below it; the product must fit 32 bits.
"""


def share(items: int, index: TirExpr, shares: int) -> tuple[TirExpr, TirExpr]:
    """Return the first item of one of `shares` equal shares of `items`, and its number of items.

    Shares with one more item are distributed evenly among the others.
    """
    each, rest = divmod(items, shares)
    first = bind(index * each + index * rest // shares)
    return first, bind((index + 1) * each + (index + 1) * rest // shares - first)


def nothing() -> None:
    """Emit a statement without effect, for a branch of a conditional."""
    T.evaluate(tirx.const(0, "int32"))


def when(condition: TirExpr, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
    """Emit a conditional with two branches."""
    with T.If(condition):
        with T.Then():
            then()
        with T.Else():
            otherwise()


def _flatten(buffer: Buffer, shape: Sequence[int], dtype: str) -> Buffer:
    """Declare the flat buffer of a parameter."""
    if dtype == "bfloat16":
        # As bits: TVM would otherwise rewrite arithmetic on bfloat16 into code without its
        # instructions.
        return T.decl_buffer((prod(shape),), "uint16", data=buffer.data)
    if len(shape) == 1:
        return buffer
    return T.decl_buffer((prod(shape),), dtype, data=buffer.data)


def prim_func(
    shapes: Sequence[tuple[Sequence[int], str]], body: Callable[[list[Buffer]], None]
) -> tirx.PrimFunc:
    """Make a PrimFunc whose `body` gets one flat buffer for each parameter of `shapes`.

    The buffer of a bfloat16 parameter holds its bits as uint16.

    Parameters
    ----------
    shapes
        Shape and dtype of each parameter, results last.
    body
        Emits the statements.
    """
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        handles = [T.arg(f"p{index}", T.handle()) for index in range(len(shapes))]
        T.func_attr({"tirx.noalias": True, EMITTED: True})
        buffers = [
            T.match_buffer(handle, tuple(shape), dtype)
            for handle, (shape, dtype) in zip(handles, shapes, strict=True)
        ]
        with T.sblock("root"):
            T.reads()
            T.writes()
            flat = [
                _flatten(buffer, shape, dtype)
                for buffer, (shape, dtype) in zip(buffers, shapes, strict=True)
            ]
            body(flat)
    return builder.get()
