"""Join layout transforms that follow each other by composing their index maps; those that undo each other vanish."""

from __future__ import annotations

from math import prod

import tvm
from tvm import relax, sym, tirx
from tvm.ir import Call

from tvm_passes.ir import (
    Expr,
    ModulePass,
    main_bindings,
    op_name,
    rebuilding,
    static_shape,
    substitute,
)


def compose(
    first: tirx.IndexMap, second: tirx.IndexMap, shape: tuple[int, ...]
) -> tirx.IndexMap | None:
    """The map that does `first` and then `second` to a tensor of `shape`; None where that is the identity.

    The shape bounds the indices, without which ``c // 16 * 16 + c % 16`` cannot be told to be ``c``.
    """
    indices = [tirx.Var(f"i{axis}", "int64") for axis in range(len(shape))]
    analyzer = sym.Analyzer()
    for index, extent in zip(indices, shape, strict=True):
        analyzer.bind(index, tvm.ir.Range(0, extent))
    moved = [analyzer.simplify(i) for i in second.map_indices(first.map_indices(indices))]
    same = len(moved) == len(indices) and all(
        analyzer.can_prove_equal(there, here) for there, here in zip(moved, indices, strict=True)
    )
    return None if same else tirx.IndexMap(indices, moved, None)


def _fills(call: Call) -> bool:
    """Whether a transform only moves elements: as many before as after."""
    before, after = static_shape(call.args[0].ty), static_shape(call.ty)
    return prod(before) == prod(after)


@tvm.transform.module_pass(opt_level=0, name="CancelTransforms")
class CancelTransforms(ModulePass):
    """Compose consecutive layout transforms.

    ``layout_transform(layout_transform(x, f), g)`` → ``layout_transform(x, g ∘ f)``, or ``x`` where g undoes f.

    *Requires* straight-line functions with static shapes. *Ensures* equality of results: maps are compared, never
    shapes (with H = W an NCHW tensor and an NHWC tensor may have equal shapes). A transform that pads stays.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Cancel the transforms of `main`."""
        main = module["main"]
        if not any(op_name(b.value) == "layout_transform" for b in main_bindings(main)):
            return module
        builder = rebuilding(module)
        made: dict[Expr, Call] = {}
        mapping: dict[Expr, Expr] = {}
        with builder.function("main", main.params, attrs=dict(main.attrs) if main.attrs else None):
            with builder.dataflow():
                for binding in main_bindings(main):
                    value = builder.normalize(substitute(binding.value, mapping.get))
                    value = _joined(value, made)
                    emitted = builder.emit(value, binding.var.name)
                    if op_name(value) == "layout_transform":
                        made[emitted] = value
                    mapping[binding.var] = value if isinstance(value, relax.Var) else emitted
                result = builder.emit_output(substitute(main.body.body, mapping.get))
            builder.emit_func_output(result)
        cleaned = builder.finalize()
        return relax.transform.DeadCodeElimination()(cleaned)


def _joined(value: Expr, made: dict[Expr, Call]) -> Expr:
    """`value`, or what it comes to when it transforms the result of another transform."""
    if op_name(value) != "layout_transform" or value.args[0] not in made:
        return value
    earlier = made[value.args[0]]
    if not (_fills(earlier) and _fills(value)):
        return value
    source = earlier.args[0]
    composed = compose(earlier.attrs.index_map, value.attrs.index_map, static_shape(source.ty))
    return source if composed is None else relax.op.layout_transform(source, composed)
