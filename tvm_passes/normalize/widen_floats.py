"""Float32 arithmetic in place of float16 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, IRModule, Op, TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, Expr, ModulePass, Var, constant_of, op_name
from tvm_passes.normalize._expressions import dtype_of, resolved, rewrite_functions
from tvm_passes.operators import NARROW_FLOATS, Trait, has_trait

_OPAQUE = ("call_", "builtin.", "memory.", "vm.", "shape_of", "to_vdevice", "hint_on_device")
"""Name prefixes of calls whose callee determines the types of its operands."""

_TYPE_ATTRIBUTES = frozenset({"dtype", "out_dtype"})
"""Attributes that hold an element type."""


@dataclass(frozen=True)
class _Types:
    """Element types to widen, and their replacement."""

    narrow: frozenset[str]
    """Types to widen."""
    wide: str
    """Type that replaces them."""

    def widened(self, ty: relax.Type) -> relax.Type:
        """Return `ty` with wide tensors in place of narrow ones."""
        if isinstance(ty, relax.TupleType):
            return relax.TupleType([self.widened(field) for field in ty.fields])
        if not self.is_narrow(ty):
            return ty
        wide = self.wide
        return (
            relax.TensorType(ty.shape, wide)
            if ty.shape
            else relax.TensorType(None, wide, None, ty.ndim)
        )

    def is_narrow(self, ty: relax.Type) -> bool:
        """Return whether `ty` is a narrow tensor, or a tuple that contains one."""
        if isinstance(ty, relax.TupleType):
            return any(self.is_narrow(field) for field in ty.fields)
        return isinstance(ty, relax.TensorType) and str(ty.dtype) in self.narrow

    def attributes(self, attrs: tvm.ir.Attrs | None) -> tvm.ir.Attrs | None:
        """Return `attrs` with the wide type in place of each narrow one."""
        if attrs is None:
            return None
        info = attrs.__tvm_ffi_type_info__
        fields = {field.name: getattr(attrs, field.name) for field in info.fields}
        narrow = [n for n in _TYPE_ATTRIBUTES & set(fields) if str(fields[n]) in self.narrow]
        if not narrow:
            return attrs
        return tvm.ir.make_node(info.type_key, **{**fields, **dict.fromkeys(narrow, self.wide)})


@mutator
class _Widener(PyExprMutator):
    def __init__(self, mod: IRModule, types: _Types) -> None:
        super().__init__(mod)
        self._types = types
        self._wide: dict[Expr, Expr] = {}
        """Operand of each rounding that this pass has inserted."""
        self._casts: dict[Var, Expr] = {}
        """Cast of each narrow variable to the wide type in the current block."""
        self._name = ""
        """Name of the current variable, which names the model's node."""

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        self._name = binding.var.name
        super().visit_var_binding_(binding)

    def visit_dataflow_block_(self, block: relax.DataflowBlock) -> relax.BindingBlock:
        with self._own_casts():
            return super().visit_dataflow_block_(block)

    def visit_binding_block_(self, block: relax.BindingBlock) -> relax.BindingBlock:
        with self._own_casts():
            return super().visit_binding_block_(block)

    @contextmanager
    def _own_casts(self) -> Iterator[None]:
        """Discard the casts of a block at its end: one branch cannot read the casts of another."""
        outer, self._casts = self._casts, dict(self._casts)
        yield
        self._casts = outer

    def visit_tuple_getitem_(self, item: TupleGetItem) -> Expr:
        item = super().visit_tuple_getitem_(item)
        if not isinstance(item, TupleGetItem):
            return item
        fields = resolved(self, item.tuple_value)
        return fields.fields[item.index] if isinstance(fields, relax.Tuple) else item

    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        if not isinstance(call, Call) or not self._computes_narrow(call):
            return call
        arguments = [self._widened(argument) for argument in call.args]
        if op_name(call) == "astype":
            return self._cast(call, arguments[0])
        attrs = self._types.attributes(call.attrs)
        wide = self.builder_.normalize(Call(call.op, arguments, attrs, call.ty_args))
        if not tvm_ffi.structural_equal(wide.ty, self._types.widened(call.ty)):
            return call
        return self._rounded(self.builder_.emit(wide, self._name), call.ty)

    def _computes_narrow(self, call: Call) -> bool:
        """Return whether a call computes in a narrow type."""
        name = op_name(call)
        if not isinstance(call.op, Op) or name.startswith(_OPAQUE):
            return False
        if has_trait(name, Trait.KEEPS_ELEMENTS):
            # Without arithmetic, operands stay narrow unless one is widened already.
            return any(self._has_wide(argument) for argument in call.args)
        return any(self._types.is_narrow(value.ty) for value in (*call.args, call))

    def _has_wide(self, expr: Expr) -> bool:
        """Return whether a widened value of `expr` exists."""
        if isinstance(expr, relax.Tuple):
            return any(self._has_wide(field) for field in expr.fields)
        return resolved(self, expr) in self._wide

    def _cast(self, call: Call, wide: Expr) -> Expr:
        """Emit a cast of the model itself, which rounds if its result is narrow."""
        dtype = str(call.attrs.dtype)
        return wide if dtype == dtype_of(wide) else relax.op.astype(wide, dtype)

    def _widened(self, expr: Expr) -> Expr:
        """Return `expr` with its narrow tensors in the wide type."""
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._widened(field) for field in expr.fields])
        if dtype_of(expr) not in self._types.narrow:
            return expr
        if isinstance(expr, Constant):
            return constant_of(array_of(expr).astype(self._types.wide))
        known = self._wide.get(resolved(self, expr))
        if known is not None:
            return known
        if not isinstance(expr, Var):
            return relax.op.astype(expr, self._types.wide)
        if expr not in self._casts:
            self._casts[expr] = self.builder_.emit(relax.op.astype(expr, self._types.wide))
        return self._casts[expr]

    def _rounded(self, wide: Expr, ty: relax.Type) -> Expr:
        """Return `wide` in its type in the model."""
        if isinstance(ty, relax.TupleType):
            fields: Sequence[Expr] = [
                self.builder_.emit(relax.TupleGetItem(wide, i)) for i in range(len(ty.fields))
            ]
            rounded = [self._rounded(*each) for each in zip(fields, ty.fields, strict=True)]
            return relax.Tuple([self.builder_.emit(field) for field in rounded])
        if not self._types.is_narrow(ty):
            return wide
        rounding = self.builder_.normalize(relax.op.astype(wide, str(ty.dtype)))
        self._wide[rounding] = wide
        return rounding


@tvm.transform.module_pass(opt_level=0, name="WidenFloats")
@dataclass(frozen=True)
class WidenFloats(ModulePass):
    """Compute in float32 in place of float16 and bfloat16; round results once.

    Sums of a narrow type overflow at 65504, and lose every term that is small in comparison. ONNX
    Runtime's CPU kernels compute such models in float32 as well, without a rounding between
    neighbouring operators.

    Before::

        lv: float16 = R.mean(R.multiply(x, x), axis=[1])
        lv1: float16 = R.sqrt(lv)

    After::

        lv = R.astype(x, "float32")
        lv1 = R.sqrt(R.mean(R.multiply(lv, lv), axis=[1]))
        lv2: float16 = R.astype(lv1, "float16")

    Ensures
        Parameters and results keep their types. A cast to a narrow type that the model spells out
        still rounds. Values that are only moved stay narrow. Unused bindings are left to dead-code
        elimination.
    """

    narrow: frozenset[str] = NARROW_FLOATS
    """Types to widen; float32 for a reference that computes in float64."""

    wide: str = "float32"
    """Type of the arithmetic."""

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        types = _Types(self.narrow, self.wide)
        return rewrite_functions(mod, lambda module, _function: _Widener(module, types))
