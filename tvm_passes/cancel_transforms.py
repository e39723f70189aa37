"""Composition of consecutive layout transforms; a transform and its inverse vanish."""

from __future__ import annotations

from math import prod

import tvm
from tvm import relax, sym, tirx
from tvm.ir import Call

from tvm_passes.ir import Expr, ModulePass, main_bindings, op_name, static_shape
from tvm_passes.main_rewriter import MainRewriter


def compose(
    first: tirx.IndexMap, second: tirx.IndexMap, shape: tuple[int, ...]
) -> tirx.IndexMap | None:
    """Compose `first` and then `second` on a tensor of `shape`; None for the identity."""
    # Without bounds of its indices, the analyzer cannot prove that ``c // 16 * 16 + c % 16`` is
    # ``c``.
    indices = [tirx.Var(f"i{axis}", "int64") for axis in range(len(shape))]
    analyzer = sym.Analyzer()
    for index, extent in zip(indices, shape, strict=True):
        analyzer.bind(index, tvm.ir.Range(0, extent))
    moved = [analyzer.simplify(i) for i in second.map_indices(first.map_indices(indices))]
    same = len(moved) == len(indices) and all(
        analyzer.can_prove_equal(there, here) for there, here in zip(moved, indices, strict=True)
    )
    return None if same else tirx.IndexMap(indices, moved, None)


def _pads(call: Call) -> bool:
    """Return whether the result of a transform has more elements than its input."""
    before, after = static_shape(call.args[0].ty), static_shape(call.ty)
    return prod(before) != prod(after)


def _is_transform(value: Expr) -> bool:
    """Return whether a value is a layout transform."""
    return op_name(value) == "layout_transform"


class _Cancelling(MainRewriter):
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.transforms: dict[Expr, Call] = {}
        """Transforms of the new `main`, by their results."""

    def rewrite(self, binding: relax.VarBinding) -> Expr:
        value = self._composed(self.builder.normalize(self.renewed(binding.value)))
        emitted = self.builder.emit(value, binding.var.name)
        if _is_transform(value):
            self.transforms[emitted] = value
        return value if isinstance(value, relax.Var) else emitted

    def _composed(self, value: Expr) -> Expr:
        """Return `value`, or one transform that replaces it and the transform of its operand."""
        earlier = self.transforms.get(value.args[0]) if _is_transform(value) else None
        if earlier is None or _pads(earlier) or _pads(value):
            return value
        source = earlier.args[0]
        composed = compose(earlier.attrs.index_map, value.attrs.index_map, static_shape(source.ty))
        return source if composed is None else relax.op.layout_transform(source, composed)


@tvm.transform.module_pass(opt_level=0, name="CancelTransforms")
class CancelTransforms(ModulePass):
    """Compose consecutive layout transforms.

    ``layout_transform(layout_transform(x, f), g)`` → ``layout_transform(x, g ∘ f)``, or ``x`` if g
    is the inverse of f.

    *Requires* a `main` without control flow, with static shapes. *Ensures* equal results: index
    maps are compared, never shapes, which may be equal for an NCHW and an NHWC tensor. A transform
    that pads stays.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Cancel the transforms of `main`."""
        if not any(_is_transform(binding.value) for binding in main_bindings(module["main"])):
            return module
        return relax.transform.DeadCodeElimination()(_Cancelling(module).run())
