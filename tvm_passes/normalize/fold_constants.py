"""Evaluate operators whose arguments are all constants, in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from math import erf
from typing import Literal

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, IRModule, Tuple, TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.ir import Constant, Expr, constant_of, op_name
from tvm_passes.limits import ConstantBudget, ImportLimits
from tvm_passes.normalize._expressions import (
    array_of,
    call_of,
    dtype_of,
    integers,
    resolved,
    rewrite_functions,
    shape_of,
)

GROWTH_BYTES = 1 << 20
"""A folded result may exceed its arguments by this much; a bigger one stays an operator."""

_FEW = 16
"""Elements of a constant that is no weight to any unit."""

_STRIP = 128
"""Rows of a matrix that are transposed at a time."""

Evaluator = Callable[[Call, list[np.ndarray]], "np.ndarray | list[np.ndarray]"]


def _result_shape(call: Call) -> tuple[int, ...]:
    shape = shape_of(call)
    assert shape is not None, "checked before evaluating"
    return shape


def _shaped(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0].reshape(_result_shape(call))


def _transposed(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    axes = call.attrs.axes
    if arrays[0].ndim == 2 and (axes is None or [int(axis) for axis in axes] == [1, 0]):
        return _transposed_matrix(arrays[0])
    return np.transpose(arrays[0], None if axes is None else [int(axis) for axis in axes])


def _transposed_matrix(matrix: np.ndarray) -> np.ndarray:
    """Transpose in strips: on a weight of hundreds of megabytes three times as fast as numpy's own copy."""
    result = np.empty(matrix.shape[::-1], matrix.dtype)
    for start in range(0, matrix.shape[0], _STRIP):
        result[:, start : start + _STRIP] = matrix[start : start + _STRIP].T
    return result


def _reducer(function: Callable[..., np.ndarray]) -> Evaluator:
    def evaluate(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
        axis = call.attrs.axis
        axes = None if axis is None else tuple(int(a) for a in axis)
        return function(arrays[0], axis=axes, keepdims=bool(call.attrs.keepdims))

    return evaluate


def _elementwise(function: Callable[..., np.ndarray]) -> Evaluator:
    return lambda _call, arrays: function(*arrays)


def _broadcast(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    return np.broadcast_to(arrays[0], _result_shape(call))


def _taken(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    modes: Mapping[str, Literal["clip", "wrap"]] = {"clip": "clip", "wrap": "wrap"}
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    mode = modes.get(str(call.attrs.mode))
    return np.take(arrays[0], arrays[1], axis=axis, mode=mode or "raise")


def _sliced(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    axes, begins, ends = (integers(resolved_argument) for resolved_argument in call.args[1:4])
    strides = integers(call.args[4]) if len(call.args) > 4 else (1,) * len(axes or ())
    if axes is None or begins is None or ends is None or strides is None:
        raise NotImplementedError
    index = [slice(None)] * arrays[0].ndim
    for axis, begin, end, stride in zip(axes, begins, ends, strides, strict=True):
        if stride < 0:
            raise NotImplementedError
        index[axis] = slice(begin, end, stride)
    return arrays[0][tuple(index)]


def _split(call: Call, arrays: list[np.ndarray]) -> list[np.ndarray]:
    sections = call.attrs.indices_or_sections
    cuts = int(sections) if isinstance(sections, tvm.tirx.IntImm) else [int(s) for s in sections]
    return np.split(arrays[0], cuts, axis=int(call.attrs.axis))


def _full(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    return np.full(_result_shape(call), arrays[0])


def _dequantized(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Numbers of a vector, or a few; matrices and filters stay integers, for units that multiply those."""
    array, scale, zero_point = arrays
    is_matrix = array.size > _FEW and sum(size > 1 for size in array.shape) > 1
    if array.dtype.itemsize == 1 and is_matrix:
        raise NotImplementedError
    return dequantized(array, scale, zero_point, int(call.attrs.axis))


def dequantized(
    array: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int
) -> np.ndarray:
    """The numbers that integers stand for; scales and zero points, if there are several, vary along `axis`."""
    shape = [1] * array.ndim
    if max(scale.size, zero_point.size) > 1:
        shape[axis] = max(scale.size, zero_point.size)
    scale, zero_point = (a.reshape(shape if a.size > 1 else ()) for a in (scale, zero_point))
    return (array.astype("int32") - zero_point).astype("float32") * scale


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


_ELEMENTWISE: Mapping[str, Callable[..., np.ndarray]] = {
    "abs": np.abs,
    "add": np.add,
    "ceil": np.ceil,
    "cos": np.cos,
    "divide": np.divide,
    "equal": np.equal,
    "erf": np.vectorize(erf),
    "exp": np.exp,
    "floor": np.floor,
    "floor_divide": np.floor_divide,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "log": np.log,
    "logical_and": np.logical_and,
    "logical_not": np.logical_not,
    "logical_or": np.logical_or,
    "matmul": np.matmul,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mod": np.mod,
    "multiply": np.multiply,
    "negative": np.negative,
    "not_equal": np.not_equal,
    "power": np.power,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": _sigmoid,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": np.square,
    "subtract": np.subtract,
    "tanh": np.tanh,
    "where": np.where,
}

_EVALUATORS: Mapping[str, Evaluator] = {
    **{name: _elementwise(function) for name, function in _ELEMENTWISE.items()},
    "astype": lambda call, arrays: arrays[0].astype(dtype_of(call)),
    "broadcast_to": _broadcast,
    "concat": lambda call, arrays: np.concatenate(arrays, axis=int(call.attrs.axis or 0)),
    "dequantize": _dequantized,
    "expand_dims": _shaped,
    "flatten": _shaped,
    "full": _full,
    "max": _reducer(np.max),
    "mean": _reducer(np.mean),
    "min": _reducer(np.min),
    "permute_dims": _transposed,
    "prod": _reducer(np.prod),
    "reshape": _shaped,
    "split": _split,
    "squeeze": _shaped,
    "stack": lambda call, arrays: np.stack(arrays, axis=int(call.attrs.axis)),
    "strided_slice": _sliced,
    "sum": _reducer(np.sum),
    "take": _taken,
    "tile": lambda call, arrays: np.tile(arrays[0], [int(r) for r in call.attrs.repeats]),
    "zeros": lambda call, _arrays: np.zeros(_result_shape(call), dtype_of(call)),
    "ones": lambda call, _arrays: np.ones(_result_shape(call), dtype_of(call)),
}

_SHAPE_ARGUMENTS = (relax.ShapeExpr, tvm.tirx.IntImm)


def evaluate(call: Call, arguments: list[Expr], budget: ConstantBudget) -> Constant | Tuple | None:
    """Value of `call` on constant `arguments`, charged to `budget`; None if it is not constant, known and small."""
    evaluator = _EVALUATORS.get(op_name(call))
    arrays = _constant_arrays(arguments)
    if evaluator is None or arrays is None or not _is_worth_folding(call, arrays):
        return None
    budget.take(_growth(call, arrays), f"operator {op_name(call)}")
    try:
        with np.errstate(all="ignore"):
            value = evaluator(call, arrays)
    except (NotImplementedError, ValueError, IndexError, TypeError, AttributeError):
        return None
    if isinstance(value, list):
        return Tuple([constant_of(part) for part in value])
    value = np.asarray(value)
    dtype = dtype_of(call)
    return constant_of(value.astype(dtype, copy=False) if dtype else value)


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


def _is_worth_folding(call: Call, arrays: list[np.ndarray]) -> bool:
    if isinstance(call.ty, relax.TupleType):
        return True
    shape = shape_of(call)
    if shape is None or not dtype_of(call):
        return False
    elements = sum(array.size for array in arrays)
    return int(np.prod(shape)) <= elements + GROWTH_BYTES // 4


def _growth(call: Call, arrays: list[np.ndarray]) -> int:
    """Bytes of the result less those of the arguments; a tuple splits what there was."""
    shape, dtype = shape_of(call), dtype_of(call)
    if shape is None or not dtype:
        return 0
    given = sum(array.nbytes for array in arrays)
    return math.prod(shape) * tvm_ffi.dtype(dtype).itemsize - given


@mutator
class _Folder(PyExprMutator):
    def __init__(self, module: IRModule, budget: ConstantBudget) -> None:
        super().__init__(module)
        self._budget = budget

    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        if not isinstance(call, Call):
            return call
        if op_name(call) == "shape_to_tensor":
            return self._shape_as_tensor(call)
        if op_name(call) not in _EVALUATORS:
            return call
        arguments = [self._constant(argument) for argument in call.args]
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
    """Evaluate operators of constants in numpy, in place of running unscheduled code.

    Before::

        lv = R.permute_dims(weight_constant)
        lv1 = R.matmul(x, lv)

    After::

        lv1 = R.matmul(x, transposed_constant)

    The shape of a tensor, as a tensor, is such a constant too.

    Requires
        Nothing.
    Ensures
        No operator of the table has only constant arguments, unless its result would be larger than
        they are by more than ``GROWTH_BYTES``. Bindings that became unused are left to dead-code elimination.
    """

    def __init__(self, budget: ConstantBudget | None = None) -> None:
        """Charge what is computed to `budget`; to one of the usual limits where None."""
        self._budget = budget

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        budget = self._budget or ConstantBudget(ImportLimits())
        return rewrite_functions(mod, lambda module, _function: _Folder(module, budget))
