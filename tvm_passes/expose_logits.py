"""Return what a final softmax reads beside what it makes: softmax saturates, and would hide errors."""

from __future__ import annotations

import tvm
from tvm import relax

from tvm_passes.ir import Expr, ModulePass, main_bindings, op_name, rebuilding, substitute

SOFTMAX = ("nn.softmax", "nn.log_softmax")
RENAMING = ("reshape", "flatten", "squeeze", "expand_dims")


def logits(main: relax.Function) -> list[Expr]:
    """What the final softmaxes of `main` read, in the order of its results."""
    values = {binding.var: binding.value for binding in main_bindings(main)}

    def made_by(expr: Expr) -> Expr:
        value: Expr = values.get(expr)
        while isinstance(value, relax.Var) or op_name(value) in RENAMING:
            value = values.get(value if isinstance(value, relax.Var) else value.args[0])
        return value

    result = main.body.body
    while isinstance(values.get(result), relax.Var):
        result = values[result]
    tupled = values.get(result, result)
    fields = tupled.fields if isinstance(tupled, relax.Tuple) else [result]
    makers = [made_by(field) for field in fields]
    return list(
        dict.fromkeys(
            maker.args[0]
            for maker in makers
            if op_name(maker) in SOFTMAX and maker.args[0] in values
        )
    )


@tvm.transform.module_pass(opt_level=0, name="ExposeLogits")
class ExposeLogits(ModulePass):
    """Append the inputs of final softmaxes to the results of `main`.

    ``return softmax(y)`` → ``return softmax(y), y``.

    *Ensures* that a module without a final softmax comes back unchanged.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Expose the logits of `module`."""
        main = module["main"]
        exposed = logits(main)
        if not exposed:
            return module
        builder = rebuilding(module)
        with builder.function("main", main.params, attrs=dict(main.attrs) if main.attrs else None):
            with builder.dataflow():
                mapping: dict[Expr, Expr] = {}
                for binding in main_bindings(main):
                    value = substitute(binding.value, mapping.get)
                    mapping[binding.var] = builder.emit(value, binding.var.name)
                result = mapping.get(main.body.body, main.body.body)
                values = [result]
                if isinstance(main.body.body.ty, relax.TupleType):
                    count = len(main.body.body.ty.fields)
                    values = [builder.emit(relax.TupleGetItem(result, i)) for i in range(count)]
                values += [mapping[value] for value in exposed]
                output = builder.emit_output(relax.Tuple(values))
            builder.emit_func_output(output)
        return builder.finalize()
