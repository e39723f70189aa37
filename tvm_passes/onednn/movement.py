"""Emitters of operators that move or rename elements: views if possible, else copies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import relax

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, static_shape
from tvm_passes.layout import block_size
from tvm_passes.onednn.contractions import ints
from tvm_passes.onednn.epilogue import finish
from tvm_passes.onednn.graph import StoredTensor
from tvm_passes.onednn.quantized import in_steps_of
from tvm_passes.onednn.scope import Scope
from tvm_passes.strides import reshaped_strides, row_major


def reshape(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``reshape``, ``flatten``, ``squeeze`` or ``expand_dims``.

    The result is a view, or one copy into its layout. A channel shuffle (reshape, permute, reshape)
    is one copy in any unpacked layout.
    """
    source = scope.tensor(binding.value.args[0])
    shape = static_shape(binding.var.ty)
    view = _reshaped(source, shape)
    if view is None:
        result = scope.result(shape)
        target = _reshaped(result, source.shape)
        if target is not None and source.dense_strides is not None:
            scope.append("reorder", [source], target)
            view = result
        else:
            view = scope.view(scope.plain(source), shape)
    scope.values[binding.var] = view


def _reshaped(tensor: StoredTensor, shape: Sequence[int]) -> StoredTensor | None:
    """Return the elements of `tensor` in another shape without a copy; None if no strides exist."""
    strides = tensor.dense_strides
    strides = None if strides is None else reshaped_strides(tensor.shape, strides, shape)
    if strides is None:
        return None
    plain = strides == row_major(shape)
    return tensor.view(shape, strides=None if plain else strides)


def permute(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``permute_dims``: a view, which a consumer copies if necessary."""
    call = binding.value
    source = scope.tensor(call.args[0])
    strides = source.dense_strides
    if strides is None:
        source = scope.plain(source)
        strides = row_major(source.shape)
    rank = len(source.shape)
    axes = (
        range(rank)[::-1] if call.attrs.axes is None else [a % rank for a in ints(call.attrs.axes)]
    )
    scope.values[binding.var] = source.view(
        [source.shape[axis] for axis in axes], strides=[strides[axis] for axis in axes]
    )


def concat(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``concat``; superfluous copies are removed when storages are merged."""
    call = binding.value
    shape = static_shape(binding.var.ty)
    attrs = {"axis": 0 if call.attrs.axis is None else int(call.attrs.axis) % len(shape)}
    fields = list(call.args[0].fields)
    following = scope.only_consumer(binding.var)
    integers = in_steps_of(scope, fields, following) if following is not None else None
    if integers is not None and following is not None:
        scope.element = integers[0].dtype
        scope.values[following.var] = scope.append(
            "concat", integers, scope.result(shape), attrs
        ).output
        scope.done.add(following.var)
        return
    parts = [scope.activation(field) for field in fields]
    finish(scope, binding.var, scope.node("concat", parts, scope.result(shape), attrs))


def _slice(
    scope: Scope, source: StoredTensor, axis: int, begin: int, size: int, step: int = 1
) -> StoredTensor:
    """Return elements ``begin``, ``begin + step``, … of `source` along `axis`, as a view."""
    strides = source.dense_strides
    shape = tuple(size if i == axis else extent for i, extent in enumerate(source.shape))
    block = block_size(source.layout)
    if strides is None:
        whole_blocks = block and begin % block == size % block == 0
        if whole_blocks and axis == 1 and step == 1 and source.shape[0] == 1:
            skipped = begin * math.prod(source.shape[2:])
            return source.view(shape, source.layout, skipped=skipped)
        return _slice(scope, scope.plain(source), axis, begin, size, step)
    skipped = begin * strides[axis]
    stepped = tuple(s * step if i == axis else s for i, s in enumerate(strides))
    if stepped == row_major(shape):
        return source.view(shape, skipped=skipped)
    return source.view(shape, strides=stepped, skipped=skipped)


def split(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``split`` as views."""
    call = binding.value
    source = scope.tensor(call.args[0])
    axis = int(call.attrs.axis) % len(source.shape)
    parts, begin = [], 0
    for field in binding.var.ty.fields:
        size = static_shape(field)[axis]
        parts.append(_slice(scope, source, axis, begin, size))
        begin += size
    scope.values[binding.var] = parts


def strided_slice(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``strided_slice`` with constant bounds and positive steps as a view."""
    call = binding.value
    axes, begins, ends, *steps = (_constants(scope, argument) for argument in call.args[1:])
    tensor = scope.tensor(call.args[0])
    for position, given in enumerate(axes):
        step = steps[0][position] if steps else 1
        if step < 1:
            raise scope.fail(f"step {step}", "a positive step")
        axis = given % len(tensor.shape)
        extent = tensor.shape[axis]
        begin, end = (_bound(bound[position], extent) for bound in (begins, ends))
        size = max(0, -(-(end - begin) // step))
        tensor = _slice(scope, tensor, axis, begin, size, step)
    scope.values[binding.var] = tensor


def take(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``take`` of one constant place as a view; exporters pick queries, keys and values so."""
    call = binding.value
    index = array_of(call.args[1]) if isinstance(call.args[1], Constant) else None
    if index is None or index.size != 1 or call.attrs.axis is None:
        raise scope.fail("places computed at run time, or several", "one constant place")
    source = scope.tensor(call.args[0])
    axis = int(call.attrs.axis) % len(source.shape)
    part = _slice(scope, source, axis, int(index.reshape(-1)[0]) % source.shape[axis], 1)
    shape = static_shape(binding.var.ty)
    view = _reshaped(part, shape)
    scope.values[binding.var] = scope.view(scope.plain(part), shape) if view is None else view


def _bound(value: int, extent: int) -> int:
    """Resolve a bound that counts from the end if negative, and clip it to the extent."""
    return min(max(value + extent if value < 0 else value, 0), extent)


def _constants(scope: Scope, argument: relax.Expr) -> list[int]:
    """Return the constant integers of a tuple argument."""
    try:
        return [int(field.value) for field in argument.fields]
    except AttributeError:
        raise scope.fail("bounds computed at run time", "constant bounds") from None


EMITTERS = {
    "concat": concat,
    "expand_dims": reshape,
    "flatten": reshape,
    "permute_dims": permute,
    "reshape": reshape,
    "split": split,
    "squeeze": reshape,
    "strided_slice": strided_slice,
    "take": take,
}
"""Emitter by Relax operator."""
