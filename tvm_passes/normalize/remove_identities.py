"""Removal of operators that change nothing; consecutive reshapes and transposes are merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, IRModule, Tuple, TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.ir import Expr, ModulePass, Var, op_name
from tvm_passes.normalize._expressions import (
    call_of,
    dtype_of,
    integers,
    resolved,
    rewrite_functions,
    scalar_of,
    shape_of,
)

Simplifier = Callable[[PyExprMutator, Call], "Expr | None"]
"""Returns a simpler expression for a call, or None."""


def _same_shape(_mutator: PyExprMutator, call: Call) -> Expr | None:
    """Drop an operator whose result has the shape and type of its operand."""
    source = call.args[0]
    shape = shape_of(call)
    same = shape is not None and shape == shape_of(source) and dtype_of(call) == dtype_of(source)
    return source if same else None


def _reshape(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Drop a reshape that changes nothing, or merge it with the reshape before it."""
    unchanged = _same_shape(mutator_, call)
    if unchanged is not None:
        return unchanged
    inner = next(
        (
            found
            for name in ("reshape", "flatten", "expand_dims", "squeeze")
            if (found := call_of(mutator_, call.args[0], name)) is not None
        ),
        None,
    )
    shape = shape_of(call)
    if inner is None or shape is None:
        return None
    merged = mutator_.builder_.normalize(relax.op.reshape(inner.args[0], shape))
    unchanged = _same_shape(mutator_, merged)
    return merged if unchanged is None else unchanged


def _permutation(call: Call) -> tuple[int, ...]:
    """Return the axes of a transpose, counted from the front."""
    axes = call.attrs.axes
    ndim = len(shape_of(call) or ())
    if axes is None:
        return tuple(reversed(range(ndim)))
    return tuple(int(axis) % ndim for axis in axes)


def _permute_dims(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Drop a transpose that changes nothing, or merge it with the transpose before it."""
    if shape_of(call) is None:
        return None
    axes = _permutation(call)
    inner = call_of(mutator_, call.args[0], "permute_dims")
    if inner is None:
        return call.args[0] if axes == tuple(range(len(axes))) else None
    first = _permutation(inner)
    composed = [first[axis] for axis in axes]
    if composed == list(range(len(composed))):
        return inner.args[0]
    return relax.op.permute_dims(inner.args[0], composed)


def _strided_slice(_mutator: PyExprMutator, call: Call) -> Expr | None:
    """Drop a slice of the whole tensor."""
    strides = integers(call.args[4]) if len(call.args) > 4 else ()
    forward = strides is not None and all(stride > 0 for stride in strides)
    return _same_shape(_mutator, call) if forward else None


def _concat(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Drop the concatenation of a single tensor."""
    fields = resolved(mutator_, call.args[0])
    if isinstance(fields, Tuple) and len(fields.fields) == 1:
        return fields.fields[0]
    return None


def _pad(_mutator: PyExprMutator, call: Call) -> Expr | None:
    """Drop padding of no elements."""
    return None if any(int(width) for width in call.attrs.pad_width) else call.args[0]


def _neutral(operator: str, neutral: float, *, commutes: bool) -> Simplifier:
    """Make a simplifier that drops an operand which is `neutral` for a binary operator."""

    def simplify(_mutator: PyExprMutator, call: Call) -> Expr | None:
        assert op_name(call) == operator
        left, right = call.args
        for data, other in ((left, right), (right, left)) if commutes else ((left, right),):
            if scalar_of(other) == neutral and shape_of(data) is not None:
                return data if shape_of(data) == shape_of(call) else None
        return None

    return simplify


_BINARY = frozenset(
    [
        "add",
        "subtract",
        "multiply",
        "divide",
        "maximum",
        "minimum",
        "power",
        "equal",
        "greater",
        "greater_equal",
        "less",
        "less_equal",
    ]
)
"""Binary operators that broadcast their operands."""


def _without_broadcast(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Rewrite ``add(broadcast_to(x), y)`` → ``add(x, y)`` if the result keeps its shape."""
    arguments = list(call.args)
    for position, argument in enumerate(arguments):
        inner = call_of(mutator_, argument, "broadcast_to")
        others = [other for other in arguments if not other.same_as(argument)]
        if inner is None or not others or shape_of(inner.args[0]) is None:
            continue
        known = [shape_of(operand) for operand in (inner.args[0], *others)]
        shapes = [shape for shape in known if shape is not None]
        if len(shapes) < len(known) or np.broadcast_shapes(*shapes) != shape_of(call):
            continue
        arguments[position] = inner.args[0]
        return Call(call.op, arguments, call.attrs, call.ty_args, call.span)
    return None


_SIMPLIFIERS: Mapping[str, tuple[Simplifier, ...]] = {
    "astype": (_same_shape,),
    "broadcast_to": (_same_shape,),
    "concat": (_concat,),
    "expand_dims": (_same_shape,),
    "flatten": (_reshape,),
    "nn.pad": (_pad,),
    "permute_dims": (_permute_dims,),
    "reshape": (_reshape,),
    "squeeze": (_same_shape,),
    "strided_slice": (_strided_slice,),
    **{name: (_without_broadcast,) for name in _BINARY | {"where"}},
    "add": (_neutral("add", 0.0, commutes=True), _without_broadcast),
    "subtract": (_neutral("subtract", 0.0, commutes=False), _without_broadcast),
    "multiply": (_neutral("multiply", 1.0, commutes=True), _without_broadcast),
    "divide": (_neutral("divide", 1.0, commutes=False), _without_broadcast),
}
"""Simplifiers by operator, tried in order."""


@mutator
class _Simplifier(PyExprMutator):
    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        simpler: Expr = call
        for simplify in _SIMPLIFIERS.get(op_name(call), ()) if isinstance(call, Call) else ():
            found = simplify(self, self.builder_.normalize(call))
            if found is not None:
                simpler = found
                break
        return simpler

    def visit_tuple_getitem_(self, item: TupleGetItem) -> Expr:
        item = super().visit_tuple_getitem_(item)
        if not isinstance(item, TupleGetItem):
            return item
        dropout = call_of(self, item.tuple_value, "nn.dropout")
        if dropout is not None and item.index == 0:
            return dropout.args[0]
        fields = resolved(self, item.tuple_value)
        return fields.fields[item.index] if isinstance(fields, Tuple) else item

    def visit_var_(self, var: Var) -> Expr:
        return self._through_aliases(super().visit_var_(var))

    def visit_dataflow_var_(self, var: Var) -> Expr:
        return self._through_aliases(super().visit_dataflow_var_(var))

    def _through_aliases(self, var: Expr) -> Expr:
        while isinstance(var, Var) and isinstance(value := self.lookup_binding(var), Var):
            var = value
        return var


@tvm.transform.module_pass(opt_level=0, name="RemoveIdentities")
class RemoveIdentities(ModulePass):
    """Remove operators that change nothing, and merge consecutive reshapes and transposes.

    Before::

        lv = R.nn.dropout(x)[0]
        lv1 = R.permute_dims(lv, axes=[0, 2, 3, 1])
        lv2 = R.permute_dims(lv1, axes=[0, 3, 1, 2])
        lv3 = R.add(lv2, R.broadcast_to(y, lv2.shape))

    After::

        lv3 = R.add(x, y)

    Requires
        Nothing.

    Ensures
        No dropout, no-op cast, reshape, slice or padding; no two consecutive transposes or
        reshapes; no broadcast that an element-wise operator performs itself. Unused bindings are
        left to dead-code elimination.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, lambda module, _function: _Simplifier(module))
