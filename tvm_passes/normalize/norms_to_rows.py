"""Normalisations over several axes as layer normalisations of rows, which have exact kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, IRModule, TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, Expr, ModulePass, constant_of, op_name
from tvm_passes.normalize._expressions import (
    call_of,
    dtype_of,
    normalized_axis,
    rewrite_functions,
    shape_of,
)

Emit = Callable[[Expr], Expr]
"""Emits an expression and returns its variable."""


def standardized(emit: Emit, data: Expr, axes: Sequence[int], epsilon: float) -> Expr | None:
    """Emit ``(data - mean) / sqrt(variance + epsilon)`` over `axes` as ``nn.layer_norm``.

    The layer normalisation is over one last axis. None if the shape of `data` is unknown.
    """
    shape = shape_of(data)
    if shape is None or not shape:
        return None
    over = sorted(normalized_axis(int(axis), len(shape)) for axis in axes)
    order = [axis for axis in range(len(shape)) if axis not in over] + over
    columns = prod(shape[axis] for axis in over)
    # Axes of length one do not affect the memory order.
    moves = [axis for axis in order if shape[axis] > 1]
    if moves == sorted(moves):
        return _reshaped(emit, _rows(emit, data, columns, epsilon), shape)
    moved = emit(relax.op.permute_dims(data, order))
    normal = _reshaped(emit, _rows(emit, moved, columns, epsilon), [shape[a] for a in order])
    return emit(relax.op.permute_dims(normal, np.argsort(order).tolist()))


def _rows(emit: Emit, data: Expr, columns: int, epsilon: float) -> Expr:
    """Normalise `data` as rows of `columns` elements."""
    rows = _reshaped(emit, data, (-1, columns))
    ones, zeros = (constant_of(np.full(columns, n, dtype_of(data))) for n in (1, 0))
    return emit(relax.op.nn.layer_norm(rows, ones, zeros, [-1], epsilon))


def _reshaped(emit: Emit, data: Expr, shape: Sequence[int]) -> Expr:
    """Return `data` in another shape; one extent may be -1."""
    now = shape_of(data)
    assert now is not None, "checked before"
    rest = prod(now) // max(1, prod(n for n in shape if n >= 0))
    wanted = tuple(rest if n < 0 else n for n in shape)
    if now == wanted:
        return data
    if isinstance(data, Constant):
        return constant_of(array_of(data).reshape(wanted))
    return emit(relax.op.reshape(data, wanted))


def _scaled(emit: Emit, normal: Expr, axis: int, scale: Expr | None, shift: Expr | None) -> Expr:
    """Multiply `normal` by `scale` and add `shift`, both per channel."""
    shape = shape_of(normal)
    assert shape is not None, "checked before"
    channels = [-1 if n == normalized_axis(axis, len(shape)) else 1 for n in range(len(shape))]
    if scale is not None:
        normal = emit(relax.op.multiply(normal, _reshaped(emit, scale, channels)))
    if shift is not None:
        normal = emit(relax.op.add(normal, _reshaped(emit, shift, channels)))
    return normal


def _parameters(call: Call) -> tuple[Expr | None, Expr | None]:
    """Return scale and shift of a normalisation; None for one that it lacks."""
    return call.args[1] if call.attrs.scale else None, call.args[2] if call.attrs.center else None


def _layer_norm(emit: Emit, call: Call) -> Expr | None:
    """Rewrite a layer normalisation over several last axes as one over a single axis."""
    data, attrs = call.args[0], call.attrs
    shape = shape_of(data)
    if shape is None or len(attrs.axes) < 2:
        return None
    axes = sorted(normalized_axis(int(axis), len(shape)) for axis in attrs.axes)
    if axes != list(range(len(shape) - len(axes), len(shape))):
        return None
    columns = prod(shape[axes[0] :])
    operands = [_reshaped(emit, argument, (columns,)) for argument in call.args[1:]]
    rows = _reshaped(emit, data, (-1, columns))
    normal = relax.op.nn.layer_norm(
        rows, *operands, [-1], attrs.epsilon, bool(attrs.center), bool(attrs.scale)
    )
    return _reshaped(emit, emit(normal), shape)


def _instance_norm(emit: Emit, call: Call) -> Expr | None:
    """Rewrite an instance normalisation."""
    attrs = call.attrs
    normal = standardized(emit, call.args[0], attrs.axes, attrs.epsilon)
    if normal is None:
        return None
    return _scaled(emit, normal, int(attrs.channel_axis), *_parameters(call))


def _group_norm(emit: Emit, call: Call) -> Expr | None:
    """Rewrite a normalisation of channel groups, if it covers all axes after the channels."""
    data, attrs = call.args[0], call.attrs
    shape = shape_of(data)
    if shape is None:
        return None
    channel = normalized_axis(int(attrs.channel_axis), len(shape))
    axes = sorted(normalized_axis(int(axis), len(shape)) for axis in attrs.axes)
    if axes != list(range(channel + 1, len(shape))):
        return None
    columns = prod(shape[channel:]) // int(attrs.num_groups)
    normal = _reshaped(emit, _rows(emit, data, columns, attrs.epsilon), shape)
    return _scaled(emit, normal, channel, *_parameters(call))


_REWRITES: Mapping[str, Callable[[Emit, Call], Expr | None]] = {
    "nn.group_norm": _group_norm,
    "nn.instance_norm": _instance_norm,
    "nn.layer_norm": _layer_norm,
}
"""Rewrite of each normalisation by operator."""


@mutator
class _NormRewriter(PyExprMutator):
    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        rewrite = _REWRITES.get(op_name(call))
        rewritten = rewrite(self.builder_.emit, call) if rewrite else None
        return call if rewritten is None else rewritten

    def visit_tuple_getitem_(self, item: TupleGetItem) -> Expr:
        item = super().visit_tuple_getitem_(item)
        if not isinstance(item, TupleGetItem) or item.index > 0:
            return item
        call = call_of(self, item.tuple_value, "nn.batch_norm")
        if call is None or not call.attrs.training:
            return item
        shape, axis = shape_of(call.args[0]), int(call.attrs.axis)
        axes = [n for n in range(len(shape or ())) if n != normalized_axis(axis, len(shape or ()))]
        emit = self.builder_.emit
        normal = standardized(emit, call.args[0], axes, call.attrs.epsilon)
        return item if normal is None else _scaled(emit, normal, axis, *_parameters(call))


@tvm.transform.module_pass(opt_level=0, name="NormsToRows")
class NormsToRows(ModulePass):
    """Write normalisations over several axes as layer normalisations of rows.

    Kernels of rows compute the mean from differences: a mean far above the deviation costs no
    digits.

    Before::

        lv = R.nn.instance_norm(x, gamma, beta, channel_axis=1, axes=[2, 3])  # x: (N, C, H, W)

    After::

        lv = R.nn.layer_norm(R.reshape(x, (N * C, H * W)), ones, zeros, axes=[-1])
        lv1 = R.add(
            R.multiply(R.reshape(lv, (N, C, H, W)), gamma), beta
        )  # both reshaped to (1, C, 1, 1)

    The same for layer, group and, in training mode, batch normalisation.

    Requires
        Normalisations that exporters spell out recognised (:class:`CanonicalizeNormalizations`).

    Ensures
        Values are equal up to rounding. Unused bindings are left to dead-code elimination.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, lambda module, _function: _NormRewriter(module))
