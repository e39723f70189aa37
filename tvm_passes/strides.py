"""Strides of tensors that movements make without a copy: reshapes, permutations, slices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvm.ir import Call

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, op_name


@dataclass(frozen=True, kw_only=True)
class Strided:
    """Positions of a tensor's elements within another tensor, in elements."""

    shape: tuple[int, ...]
    """Extents of the axes."""
    strides: tuple[int, ...]
    """Stride of each axis."""
    start: int = 0
    """Position of the first element."""

    def permuted(self, axes: Sequence[int]) -> Strided:
        """Return the same elements with the axes in another order."""
        return Strided(
            shape=tuple(self.shape[axis] for axis in axes),
            strides=tuple(self.strides[axis] for axis in axes),
            start=self.start,
        )


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Compute the strides of a dense row-major tensor, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def dense(shape: Sequence[int]) -> Strided:
    """Return the positions of a dense row-major tensor."""
    return Strided(shape=tuple(shape), strides=row_major(shape))


def reshaped_strides(
    shape: Sequence[int], strides: Sequence[int], target: Sequence[int]
) -> tuple[int, ...] | None:
    """Compute the strides with which elements at `strides` have the shape `target`.

    None if there are no such strides. Runs of axes with equal products correspond; the axes of a
    run on the source side must be nested densely.
    """
    axes = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]
    out: list[int] = []
    position = 0
    pending: list[int] = []
    for size in target:
        pending.append(size)
        wanted = math.prod(pending)
        if wanted == 1:
            continue
        end, product = position, 1
        while product < wanted and end < len(axes):
            product *= axes[end][0]
            end += 1
        if product != wanted:
            continue
        run = axes[position:end]
        if any(outer[1] != inner[0] * inner[1] for outer, inner in itertools.pairwise(run)):
            return None
        out += [step * run[-1][1] for step in row_major(pending)]
        position, pending = end, []
    return (*out, *(1 for _ in pending))


def _reshaped(_call: Call, source: Strided, shape: tuple[int, ...]) -> Strided | None:
    strides = reshaped_strides(source.shape, source.strides, shape)
    return None if strides is None else Strided(shape=shape, strides=strides, start=source.start)


def permutation(call: Call, rank: int) -> list[int]:
    """Return the axes of ``permute_dims``, counted from the front."""
    axes = call.attrs.axes
    return list(range(rank))[::-1] if axes is None else [int(axis) % rank for axis in axes]


def _permuted(call: Call, source: Strided, _shape: tuple[int, ...]) -> Strided | None:
    return source.permuted(permutation(call, len(source.shape)))


def _taken(call: Call, source: Strided, shape: tuple[int, ...]) -> Strided | None:
    """Elements at one constant index of an axis."""
    index = call.args[1]
    if not isinstance(index, Constant) or call.attrs.axis is None:
        return None
    array = array_of(index)
    if array.size != 1:
        return None
    axis = int(call.attrs.axis) % len(source.shape)
    place = int(array.reshape(-1)[0]) % source.shape[axis]
    kept = (1,) * array.ndim
    taken = Strided(
        shape=(*source.shape[:axis], *kept, *source.shape[axis + 1 :]),
        strides=(*source.strides[:axis], *kept, *source.strides[axis + 1 :]),
        start=source.start + place * source.strides[axis],
    )
    return taken if taken.shape == shape else None


def _sliced(call: Call, source: Strided, shape: tuple[int, ...]) -> Strided | None:
    """Elements between constant bounds, in positive steps."""
    try:
        axes, begins, _, *steps = ([int(one.value) for one in arg.fields] for arg in call.args[1:])
    except AttributeError:
        return None
    strides, start = list(source.strides), source.start
    for place, given in enumerate(axes):
        axis, step = given % len(source.shape), steps[0][place] if steps else 1
        if step < 1:
            return None
        extent = source.shape[axis]
        begin = begins[place] + extent if begins[place] < 0 else begins[place]
        start += min(max(begin, 0), extent) * strides[axis]
        strides[axis] *= step
    return Strided(shape=shape, strides=tuple(strides), start=start)


_Move = Callable[[Call, Strided, tuple[int, ...]], "Strided | None"]
_MOVES: Mapping[str, _Move] = {
    "expand_dims": _reshaped,
    "flatten": _reshaped,
    "permute_dims": _permuted,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "strided_slice": _sliced,
    "take": _taken,
}
"""Positions of a movement's result by operator."""


def moved(call: Call, source: Strided, shape: Sequence[int]) -> Strided | None:
    """Return the positions of the result of a movement, or None if there are no strides for them.

    Parameters
    ----------
    call
        Call of any operator; only movements have a result.
    source
        Positions of its operand.
    shape
        Shape of its result.
    """
    move = _MOVES.get(op_name(call))
    return move(call, source, tuple(shape)) if move else None


def operand_of(call: Call, result: Strided, shape: Sequence[int]) -> Strided | None:
    """Return the positions of a movement's operand for those of its result, or None.

    Only movements that keep all elements have them.

    Parameters
    ----------
    shape
        Shape of the operand.
    """
    name = op_name(call)
    if name == "permute_dims":
        axes = permutation(call, len(shape))
        return result.permuted([axes.index(axis) for axis in range(len(axes))])
    if _MOVES.get(name) is not _reshaped:
        return None
    return _reshaped(call, result, tuple(shape))
