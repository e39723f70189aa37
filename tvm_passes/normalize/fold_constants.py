"""Evaluate operators whose arguments are all constants."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from math import prod

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, IRModule, Tuple, TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.errors import UnsupportedModel
from tvm_passes.ir import Constant, Expr, constant_of, leaves, op_name, static_shape, tensor_types
from tvm_passes.limits import ConstantBudget, ImportLimits
from tvm_passes.normalize import run_constants
from tvm_passes.normalize._expressions import (
    array_of,
    call_of,
    dtype_of,
    integers,
    resolved,
    rewrite_functions,
    shape_of,
)
from tvm_passes.normalize.evaluators import EVALUATORS

GROWTH_BYTES = 1 << 20
"""A folded result may exceed its arguments by this much; a bigger one stays an operator."""

WEIGHT_BYTES = 1 << 28
"""Largest weight that is computed from smaller constants: no unit has fast code for weights of run time."""

_WEIGHTS: Mapping[str, int] = {
    "matmul": 1,
    **{f"nn.conv{rank}d": 1 for rank in (1, 2, 3)},
    **{f"nn.conv{rank}d_transpose": 1 for rank in (1, 2, 3)},
}
"""Position of the argument that units pack before the first run."""

_SHAPE_ARGUMENTS = (relax.ShapeExpr, tvm.tirx.IntImm, tvm.tirx.FloatImm)


def evaluate(
    call: Call, arguments: list[Expr], budget: ConstantBudget, growth: int = GROWTH_BYTES
) -> Constant | Tuple | None:
    """Value of `call` on constant `arguments`, charged to `budget`; None where it stays.

    It stays where it is not constant, unknown to TVM, too much work, or larger than its arguments by `growth` bytes.
    """
    arrays = _constant_arrays(arguments)
    if arrays is None or not _is_worth_folding(call, arrays, growth):
        return None
    budget.take(_growth(call, arrays), f"operator {op_name(call)}")
    evaluator = EVALUATORS.get(op_name(call))
    value = None
    if evaluator is not None:
        with (
            contextlib.suppress(
                NotImplementedError, ValueError, IndexError, TypeError, AttributeError
            ),
            np.errstate(all="ignore"),
        ):
            value = evaluator(call, arrays)
    if value is None:
        value = run_constants.run(Call(call.op, arguments, call.attrs, call.ty_args))
    if value is None:
        return None
    if isinstance(call.ty, relax.TupleType):
        return Tuple([constant_of(part) for part in value])
    value = np.asarray(value[0] if isinstance(value, list) else value)
    return constant_of(value.astype(dtype_of(call), copy=False))


def _constant_arrays(arguments: list[Expr]) -> list[np.ndarray] | None:
    arrays: list[np.ndarray] = []
    for argument in arguments:
        fields = list(argument.fields) if isinstance(argument, Tuple) else [argument]
        for field in fields:
            if isinstance(field, Constant):
                arrays.append(array_of(field))
            elif not isinstance(field, _SHAPE_ARGUMENTS):
                return None
    return arrays


def _is_worth_folding(call: Call, arrays: list[np.ndarray], growth: int) -> bool:
    """Whether every result is a tensor of known size, and all of them together are small enough."""
    results = tensor_types(call.ty)
    shapes = [_known_shape(result) for result in results]
    if not results or not all(result.dtype for result in results):
        return False
    elements = sum(array.size for array in arrays)
    sizes = [None if shape is None else int(np.prod(shape)) for shape in shapes]
    return None not in sizes and sum(filter(None, sizes)) <= elements + growth // 4


def _known_shape(ty: relax.TensorType) -> tuple[int, ...] | None:
    try:
        return static_shape(ty)
    except UnsupportedModel:
        return None


def _growth(call: Call, arrays: list[np.ndarray]) -> int:
    """Bytes of the results less those of the arguments."""
    given = sum(array.nbytes for array in arrays)
    results = tensor_types(call.ty)
    return sum(prod(static_shape(ty)) * tvm_ffi.dtype(ty.dtype).itemsize for ty in results) - given


@mutator
class _Folder(PyExprMutator):
    def __init__(self, module: IRModule, budget: ConstantBudget) -> None:
        super().__init__(module)
        self._budget = budget
        self._large: set[relax.Var] = set()
        """Variables that depend on constants alone, but are larger than they are."""

    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        if not isinstance(call, Call):
            return call
        if op_name(call) == "shape_to_tensor":
            return self._shape_as_tensor(call)
        arguments = [self._constant(argument) for argument in call.args]
        weight = _WEIGHTS.get(op_name(call))
        if weight is not None:
            forced = self._forced(arguments[weight], {})
            arguments[weight] = forced if isinstance(forced, Constant) else arguments[weight]
        value = evaluate(call, arguments, self._budget)
        if value is not None:
            return value
        if all(new.same_as(old) for new, old in zip(arguments, call.args, strict=True)):
            return call
        return Call(call.op, arguments, call.attrs, call.ty_args, call.span)

    def visit_tuple_getitem_(self, item: TupleGetItem) -> Expr:
        item = super().visit_tuple_getitem_(item)
        if not isinstance(item, TupleGetItem):
            return item
        value = resolved(self, item.tuple_value)
        if isinstance(value, Tuple) and isinstance(value.fields[item.index], Constant):
            return value.fields[item.index]
        return item

    def _shape_as_tensor(self, call: Call) -> Expr:
        """The integers of a shape that is known, as a constant."""
        shape = resolved(self, call.args[0])
        of = call_of(self, shape, "shape_of")
        dims = integers(shape) if of is None else shape_of(of.args[0])
        return call if dims is None else constant_of(np.asarray(dims, "int64"))

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        """Note which variables depend on constants alone, though they stay operators."""
        super().visit_var_binding_(binding)
        var = self.visit_expr(binding.var)
        value = self.lookup_binding(var) if isinstance(var, relax.Var) else None
        found = () if value is None else tuple(leaves(value))
        if found and all(leaf in self._large for leaf in found if isinstance(leaf, relax.Var)):
            self._large.add(var)

    def _forced(self, argument: Expr, known: dict[relax.Var, Expr]) -> Expr:
        """Value of a weight, whatever it grows to within its limit; `argument` itself if it is not constant.

        `known` keeps the values of variables that several operators read.
        """
        if not isinstance(argument, relax.Var):
            return self._computed(argument, known)
        if argument not in self._large:
            return argument
        if argument not in known:
            known[argument] = self._computed(resolved(self, argument), known)
        value = known[argument]
        return value if isinstance(value, (Constant, Tuple)) else argument

    def _computed(self, value: Expr, known: dict[relax.Var, Expr]) -> Expr:
        """Value of an expression of constants; the expression itself where it stays."""
        if isinstance(value, Tuple):
            return Tuple([self._forced(field, known) for field in value.fields])
        if isinstance(value, TupleGetItem):
            fields = self._forced(value.tuple_value, known)
            return fields.fields[value.index] if isinstance(fields, Tuple) else value
        if not isinstance(value, Call):
            return value
        arguments = [self._forced(inner, known) for inner in value.args]
        room = min(WEIGHT_BYTES, self._budget.left)
        folded = evaluate(value, arguments, self._budget, room)
        return value if folded is None else folded

    def _constant(self, argument: Expr) -> Expr:
        """Constant that `argument` stands for; `argument` itself if there is none."""
        value = resolved(self, argument)
        if isinstance(value, Constant):
            return value
        if isinstance(value, Tuple) and not isinstance(argument, relax.Var):
            return Tuple([self._constant(field) for field in value.fields])
        return argument


@tvm.transform.module_pass(opt_level=0, name="FoldConstants")
class FoldConstants:
    """Evaluate operators of constants: in numpy where the table has them, by TVM's own code otherwise.

    Before::

        lv = R.permute_dims(weight_constant)
        lv1 = R.matmul(x, lv)

    After::

        lv1 = R.matmul(x, transposed_constant)

    The shape of a tensor, as a tensor, is such a constant too.

    Requires
        Nothing.
    Ensures
        No pure operator has only constant arguments, unless its result would be larger than they are by more than
        ``GROWTH_BYTES`` (a weight: ``WEIGHT_BYTES``), or would take more than ``run_constants.MOST_STEPS`` steps; integers
        that stand for matrices stay as well. Bindings that became unused are left to dead-code elimination.
    """

    def __init__(self, budget: ConstantBudget | None = None) -> None:
        """Charge what is computed to `budget`; to one of the usual limits where None."""
        self._budget = budget

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        budget = self._budget or ConstantBudget(ImportLimits())
        return rewrite_functions(mod, lambda module, _function: _Folder(module, budget))
