"""Per-channel scales and shifts, merged into each other and into the weights before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.arrays import array_of, own_pages
from tvm_passes.ir import Constant, Expr, ModulePass, Var, constant_of, op_name
from tvm_passes.normalize._expressions import (
    dtype_of,
    is_per_channel,
    resolved,
    rewrite_functions,
    shape_of,
    use_counts,
)

_FLOATS = frozenset({"float16", "float32", "float64"})
"""Element types whose scales are merged."""


def _scale_leading(weight: np.ndarray, scale: np.ndarray, _groups: int) -> np.ndarray:
    """Scale the outputs of a convolution, whose weight is (O, I / groups, ...)."""
    return _scaled(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)))


def _scale_transposed(weight: np.ndarray, scale: np.ndarray, groups: int) -> np.ndarray:
    """Scale the outputs of a transposed convolution, whose weight is (I, O / groups, ...)."""
    outputs = weight.shape[1]
    if scale.size == 1:
        return _scaled(weight, scale.reshape(()))
    grouped = weight.reshape(groups, weight.shape[0] // groups, outputs, -1)
    return _scaled(grouped, scale.reshape(groups, 1, outputs, 1)).reshape(weight.shape)


def _scale_last(weight: np.ndarray, scale: np.ndarray, _groups: int) -> np.ndarray:
    """Scale the columns of a matrix."""
    return _scaled(weight, scale.reshape(-1))


def _scaled(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Multiply in the wider type of the two; the result has the type of `weight`."""
    result = own_pages(weight.shape, weight.dtype)
    return np.multiply(weight, scale, out=result, casting="same_kind")


_CONVOLUTIONS = {f"nn.conv{rank}d": _scale_leading for rank in (1, 2, 3)} | {
    f"nn.conv{rank}d_transpose": _scale_transposed for rank in (1, 2, 3)
}
"""Function that scales the output channels of a convolution's weight, by operator."""
_SCALERS: Mapping[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    **_CONVOLUTIONS,
    "matmul": _scale_last,
}
"""Function of (weight, scale, groups) that scales the output channels of a weight, by operator."""

_PLAIN_LAYOUT = {"NCW", "NCHW", "NCDHW"}
"""Layouts in which convolutions are recognised."""


@dataclass(frozen=True, kw_only=True)
class _Affine:
    """A value of the form ``base * scale + shift``, or ``anchor(weight * scale) + shift``."""

    base: Expr
    """Scaled value: the input of the chain, or the anchor's call."""
    anchored: bool
    """True if `base` is an anchor whose weights can absorb the scale."""
    axis: int
    """Channel axis of an anchored value."""
    name: str
    """Name of the anchor's binding, kept for its replacement."""
    scale: np.ndarray | None = None
    """Factor; None means one."""
    shift: np.ndarray | None = None
    """Term; None means zero."""
    steps: int = 0
    """Number of element-wise operators that this form replaces."""


def _compose(step: tuple[str, np.ndarray], affine: _Affine) -> _Affine:
    """`affine` followed by one step, ``multiply`` or ``add`` of a constant."""
    kind, value = step
    if kind == "add":
        shift = value if affine.shift is None else affine.shift + value
        return replace(affine, shift=shift, steps=affine.steps + 1)
    scale = value if affine.scale is None else affine.scale * value
    shift = None if affine.shift is None else affine.shift * value
    return replace(affine, scale=scale, shift=shift, steps=affine.steps + 1)


def _grows(merged: _Affine, start: _Affine, value: np.ndarray) -> bool:
    """Return whether merging broadcasts constants to a larger one than each of them."""
    before = max(part.size for part in (start.scale, start.shift, value) if part is not None)
    after = max(part.size for part in (merged.scale, merged.shift) if part is not None)
    return after > before


@mutator
class _ScaleShiftFolder(PyExprMutator):
    def __init__(self, mod: IRModule, function: relax.Function) -> None:
        super().__init__(mod)
        self._uses: Counter[Var] = use_counts(function)
        self._forms: dict[Var, _Affine] = {}
        self._scaled: dict[tuple[Call, int], Constant] = {}

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        form = self._form(binding) if isinstance(binding.value, Call) else None
        if form is not None and self._uses[binding.var] == 1:
            self._forms[binding.var] = form
        if form is not None and form.steps > (0 if form.anchored else 1):
            binding = relax.VarBinding(binding.var, self._emit(form))
        super().visit_var_binding_(binding)

    def _form(self, binding: relax.VarBinding) -> _Affine | None:
        """Return the affine form of a binding's value over the original variables, or None."""
        call = binding.value
        if op_name(call) in _SCALERS:
            return self._anchor(binding)
        step = self._step(call)
        if step is None:
            return None
        operand, kind, value = step
        fresh = _Affine(base=operand, anchored=False, axis=0, name=binding.var.name)
        start = self._forms.get(operand, fresh)
        merged = _compose((kind, value), start)
        reaches_weights = kind == "add" or is_per_channel(
            value.shape, start.axis, len(shape_of(call) or ())
        )
        if _grows(merged, start, value) or (start.anchored and not reaches_weights):
            return _compose((kind, value), fresh)
        return merged

    def _anchor(self, binding: relax.VarBinding) -> _Affine | None:
        """Return the form of a convolution or matrix product with constant weights, or None."""
        call, name = binding.value, binding.var.name
        weight = resolved(self, call.args[1])
        if not isinstance(weight, Constant) or dtype_of(call) not in _FLOATS:
            return None
        if dtype_of(weight) != dtype_of(call):
            return None
        shape = shape_of(call)
        if op_name(call) == "matmul":
            if shape is None or len(shape_of(weight) or ()) != 2 or len(shape) < 2:
                return None
            return _Affine(base=call, anchored=True, axis=len(shape) - 1, name=name)
        if call.attrs.data_layout not in _PLAIN_LAYOUT or shape is None:
            return None
        return _Affine(base=call, anchored=True, axis=1, name=name)

    def _step(self, call: Call) -> tuple[Var, str, np.ndarray] | None:
        """Return `call` as a step on a variable: (variable, ``multiply`` or ``add``, constant)."""
        name, shape = op_name(call), shape_of(call)
        if name not in ("add", "subtract", "multiply", "divide") or dtype_of(call) not in _FLOATS:
            return None
        left, right = call.args
        if isinstance(left, Constant) and name in ("add", "multiply"):
            left, right = right, left
        if not isinstance(left, Var) or not isinstance(right, Constant):
            return None
        value = array_of(right)
        if shape is None or shape_of(left) != shape or value.ndim > len(shape):
            return None
        if name in ("add", "subtract"):
            return left, "add", value if name == "add" else -value
        if name == "divide":
            return (left, "multiply", 1 / value) if value.all() else None
        return left, "multiply", value

    def _emit(self, form: _Affine) -> Expr:
        """Emit the shortest expression of `form` over the original variables."""
        value, dtype = form.base, dtype_of(form.base)
        if form.anchored:
            value = self._scaled_anchor(form)
        elif form.scale is not None:
            value = relax.op.multiply(value, constant_of(form.scale.astype(dtype)))
        if form.shift is None or not form.shift.any():
            return value
        shift = self._shift_constant(form, dtype)
        if isinstance(value, Call):
            value = self._bind(self.visit_expr(value), form.name)
        return relax.op.add(value, shift)

    def _bind(self, value: Expr, name: str) -> Var:
        """Emit `value` under exactly `name`: the binding of that name becomes unused."""
        value = self.builder_.normalize(value)
        kind = relax.DataflowVar if self.builder_.current_block_is_dataflow() else relax.Var
        var = kind(name, value.ty)
        self.builder_.emit_normalized(relax.VarBinding(var, value))
        return var

    def _scaled_anchor(self, form: _Affine) -> Call:
        """Return the anchor's call with the scale merged into its weights."""
        call = form.base
        if form.scale is None:
            return call
        key = (call, id(form.scale))
        if key not in self._scaled:
            weight = array_of(resolved(self, call.args[1]))
            groups = int(getattr(call.attrs, "groups", 1))
            scaled = _SCALERS[op_name(call)](weight, form.scale, groups)
            self._scaled[key] = constant_of(scaled)
        arguments = [call.args[0], self._scaled[key], *call.args[2:]]
        return Call(call.op, arguments, call.attrs, call.ty_args, call.span)

    @staticmethod
    def _shift_constant(form: _Affine, dtype: str) -> Constant:
        """Return the shift as a constant in the shape that follows its anchor."""
        shift = form.shift
        assert shift is not None
        shape = shape_of(form.base) or ()
        if form.anchored and is_per_channel(shift.shape, form.axis, len(shape)):
            channels = shape[form.axis]
            shift = np.broadcast_to(shift.reshape(-1), (channels,))
            if op_name(form.base) != "matmul":
                shift = shift.reshape(1, channels, *[1] * (len(shape) - 2))
        return constant_of(shift.astype(dtype))


@tvm.transform.module_pass(opt_level=0, name="FoldScaleShift")
class FoldScaleShift(ModulePass):
    """Merge chains of constant scales and shifts, if possible into the weights before them.

    Before::

        lv = R.nn.conv2d(x, weight)
        lv1 = R.multiply(lv, scale)  # (1, C, 1, 1) or a scalar
        lv2 = R.add(lv1, shift)

    After::

        lv = R.nn.conv2d(x, scaled_weight)
        lv2 = R.add(lv, shift)  # (1, C, 1, 1)

    After a matrix product the shift has shape (N,). A chain without weights before it becomes one
    multiplication and one addition. A chain ends at a value that is read twice.

    Requires
        Weights folded to constants (:class:`FoldConstants`); batch normalisation decomposed
        (:class:`DecomposeBatchNorm`); no unused bindings, which would count as readers.
    Ensures
        A convolution or matrix product with constant weights is followed by no constant scale, and
        by one constant shift at most, as far as its value is read once.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, _ScaleShiftFolder)
