"""Stage 4 → 5: take the weights out of the code, so that an artifact can map them from its file."""

from __future__ import annotations

import tvm
from tvm import relax

from tvm_passes.ir import (
    Constant,
    Expr,
    ModulePass,
    leaves,
    main_bindings,
    substitute,
)


def collect_weights(module: tvm.IRModule) -> list[Constant]:
    """The constants of `main` that :class:`LiftWeights` lifts, in its order."""
    found: dict[Constant, None] = {}
    for binding in main_bindings(module["main"]):
        for leaf in leaves(binding.value):
            if isinstance(leaf, Constant):
                found[leaf] = None
    return list(found)


@tvm.transform.module_pass(opt_level=0, name="LiftWeights")
class LiftWeights(ModulePass):
    """Turn the constants of `main` into one tuple parameter behind the model's inputs.

    ``main(x): f(x, const)`` → ``main(x, weights): f(x, weights[0])``.

    *Requires* a straight-line `main`. *Ensures* that ``collect_weights`` of the module before gives the tuple's fields.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Lift the weights of `module`."""
        main = module["main"]
        weights = collect_weights(module)
        rest = {gv: f for gv, f in module.functions.items() if gv.name_hint != "main"}
        builder = relax.BlockBuilder(tvm.IRModule(rest, attrs=module.attrs))
        packed = relax.Var("weights", relax.TupleType([weight.ty for weight in weights]))
        attrs = dict(main.attrs) if main.attrs else {}
        mapping: dict[Expr, Expr] = {}
        with builder.function("main", [*main.params, packed], attrs=attrs):
            with builder.dataflow():
                for index, weight in enumerate(weights):
                    mapping[weight] = builder.emit(relax.TupleGetItem(packed, index))
                for binding in main_bindings(main):
                    mapping[binding.var] = builder.emit(substitute(binding.value, mapping.get))
                result = builder.emit_output(substitute(main.body.body, mapping.get))
            builder.emit_func_output(result)
        lifted = builder.finalize()
        return lifted.with_attrs(module.attrs) if module.attrs else lifted
