"""Stage 1: the order in which sub-graphs are called, which decides what devices do while the host works."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.decision import SubgraphId
from tvm_passes.errors import IllegalDecision
from tvm_passes.ir import Expr, ModulePass, Var, leaves, main_bindings, rebuilding, substitute
from tvm_passes.rewrite_layouts import subgraph_id


@tvm.transform.module_pass(opt_level=0, name="OrderSubgraphs")
class OrderSubgraphs(ModulePass):
    """Call sub-graphs in a given order.

    ``a = s0(x); b = s1(a); c = s2(a)``, order s0, s2, s1 → ``a = s0(x); c = s2(a); b = s1(a)``.

    *Requires* stage 1. *Ensures* the same values. Whatever else `main` binds follows what it reads.

    Parameters
    ----------
    order
        Every sub-graph once, each behind those that it reads.
    """

    def __init__(self, order: Sequence[SubgraphId]) -> None:
        self.order = tuple(order)

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Reorder `main`; raises :class:`IllegalDecision` where the order is none of its sub-graphs'."""
        main = module["main"]
        waiting = {_name(module, binding): binding for binding in main_bindings(main)}
        others = [waiting.pop(name) for name in list(waiting) if isinstance(name, Var)]
        if sorted(map(str, waiting)) != sorted(self.order):
            raise IllegalDecision(
                f"an order of {len(self.order)} sub-graphs: expected each of the model's {len(waiting)} once"
            )
        builder = rebuilding(module)
        mapping: dict[Expr, Expr] = {param: param for param in main.params}

        def emit(binding: relax.VarBinding) -> None:
            value = substitute(binding.value, mapping.get)
            mapping[binding.var] = builder.emit(value, binding.var.name)

        def emit_what_can_be() -> None:
            for binding in list(others):
                if all(leaf in mapping for leaf in _read(binding.value)):
                    emit(binding)
                    others.remove(binding)

        with builder.function("main", main.params, attrs=dict(main.attrs) if main.attrs else None):
            with builder.dataflow():
                emit_what_can_be()
                for name in self.order:
                    late = [leaf for leaf in _read(waiting[name].value) if leaf not in mapping]
                    if late:
                        raise IllegalDecision(
                            f"the order calls sub-graph {name} before what makes {late[0].name}, which it reads"
                        )
                    emit(waiting[name])
                    emit_what_can_be()
                result = builder.emit_output(substitute(main.body.body, mapping.get))
            builder.emit_func_output(result)
        return builder.finalize()


def _name(module: tvm.IRModule, binding: relax.VarBinding) -> SubgraphId | Var:
    """The sub-graph that a binding calls; its variable where it calls none."""
    value = binding.value
    called = value.op if isinstance(value, Call) else None
    found = subgraph_id(module[called]) if isinstance(called, GlobalVar) else None
    return binding.var if found is None else found


def _read(value: Expr) -> list[Var]:
    return [leaf for leaf in leaves(value) if isinstance(leaf, Var)]
