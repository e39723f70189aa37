"""Evaluation of operators whose arguments are all constants."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from math import prod

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, IRModule, Tuple, TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.arrays import array_of
from tvm_passes.errors import UnsupportedModel
from tvm_passes.ir import (
    Constant,
    Expr,
    ModulePass,
    constant_of,
    leaves,
    op_name,
    static_shape,
    tensor_types,
)
from tvm_passes.limits import ImportBudget, ImportLimits
from tvm_passes.normalize import run_constants
from tvm_passes.normalize._expressions import (
    call_of,
    dtype_of,
    integers,
    resolved,
    rewrite_functions,
    shape_of,
)
from tvm_passes.operators import find_operator

GROWTH_BYTES = 1 << 20
"""Maximum growth of a folded result over its arguments, bytes; larger results stay operators."""

WEIGHT_BYTES = 1 << 28
"""Maximum size of a weight that is computed from smaller constants, bytes.

The limit is high because no unit has fast code for weights that are computed at run time.
"""

_SHAPE_ARGUMENTS = (relax.ShapeExpr, tvm.tirx.IntImm, tvm.tirx.FloatImm)
"""Types of arguments that are part of an operator's definition."""


def evaluate(
    call: Call, arguments: list[Expr], budget: ImportBudget, growth: int = GROWTH_BYTES
) -> Constant | Tuple | None:
    """Evaluate `call` on constant `arguments`, charged to `budget`; None if the call stays.

    A call stays if an argument is not constant, if TVM does not know the operator, if it needs too
    many steps, or if its results exceed its arguments by more than `growth` bytes.
    """
    arrays = _constant_arrays(arguments)
    if arrays is None or not _is_worth_folding(call, arrays, growth):
        return None
    budget.take(_growth(call, arrays), f"operator {op_name(call)}")
    evaluator = find_operator(op_name(call)).evaluate
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
    """Return the arrays of all constant arguments; None if an argument is not constant."""
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
    """Return whether every result is a tensor of known size, and their total is small enough."""
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
    """Return the size of the results minus that of the arguments, bytes."""
    given = sum(array.nbytes for array in arrays)
    results = tensor_types(call.ty)
    return sum(prod(static_shape(ty)) * tvm_ffi.dtype(ty.dtype).itemsize for ty in results) - given


@mutator
class _Folder(PyExprMutator):
    def __init__(self, module: IRModule, budget: ImportBudget) -> None:
        super().__init__(module)
        self._budget = budget
        self._large: set[relax.Var] = set()
        """Variables that depend only on constants but are larger than these."""

    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        if not isinstance(call, Call):
            return call
        if op_name(call) == "shape_to_tensor":
            return self._shape_as_tensor(call)
        arguments = [self._constant(argument) for argument in call.args]
        weight = find_operator(op_name(call)).packed_operand
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
        """Return the extents of a known shape as a constant."""
        shape = resolved(self, call.args[0])
        of = call_of(self, shape, "shape_of")
        dims = integers(shape) if of is None else shape_of(of.args[0])
        return call if dims is None else constant_of(np.asarray(dims, "int64"))

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        """Record a variable that depends only on constants although its operator stays."""
        super().visit_var_binding_(binding)
        var = self.visit_expr(binding.var)
        value = self.lookup_binding(var) if isinstance(var, relax.Var) else None
        found = () if value is None else tuple(leaves(value))
        if found and all(leaf in self._large for leaf in found if isinstance(leaf, relax.Var)):
            self._large.add(var)

    def _forced(self, argument: Expr, known: dict[relax.Var, Expr]) -> Expr:
        """Evaluate a weight up to :data:`WEIGHT_BYTES`; returns `argument` if it is not constant.

        `known` holds the values computed so far, as several operators may read one variable.
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
        """Evaluate an expression of constants; returns the expression if it is not folded."""
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
        """Return the constant that `argument` is bound to, or `argument` itself."""
        value = resolved(self, argument)
        if isinstance(value, Constant):
            return value
        if isinstance(value, Tuple) and not isinstance(argument, relax.Var):
            return Tuple([self._constant(field) for field in value.fields])
        return argument


@tvm.transform.module_pass(opt_level=0, name="FoldConstants")
@dataclass(frozen=True)
class FoldConstants(ModulePass):
    """Evaluate operators of constants, in numpy where their entries can, else by TVM's own code.

    Before::

        lv = R.permute_dims(weight_constant)
        lv1 = R.matmul(x, lv)

    After::

        lv1 = R.matmul(x, transposed_constant)

    The shape of a tensor, read as a tensor, is a constant too.

    Requires
        Nothing.
    Ensures
        No pure operator has only constant arguments, with these exceptions: the result exceeds its
        arguments by more than ``GROWTH_BYTES`` (for a weight: ``WEIGHT_BYTES``), the operator needs
        more than ``run_constants.MOST_STEPS`` steps, or it dequantises a matrix, as units multiply
        its integers. Unused bindings are left to dead-code elimination.
    """

    budget: ImportBudget | None = None
    """Limit to which computed constants are charged; None for a new one of the default size."""

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        budget = self.budget or ImportBudget(ImportLimits())
        return rewrite_functions(mod, lambda module, _function: _Folder(module, budget))
