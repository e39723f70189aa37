"""Stage 1: order of sub-graph calls, which determines the devices' work while the host computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.decision import SubgraphId
from tvm_passes.errors import IllegalDecision
from tvm_passes.ir import ModulePass, Var, leaves
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.rewrite_layouts import subgraph_id


class _Ordering(MainRewriter):
    def __init__(self, module: tvm.IRModule, order: Sequence[SubgraphId]) -> None:
        super().__init__(module)
        self.order = order

    def body(self, bindings: Sequence[relax.VarBinding]) -> None:
        calls: dict[SubgraphId, relax.VarBinding] = {}
        others: list[relax.VarBinding] = []
        for binding in bindings:
            called = _called(self.module, binding)
            if called is None:
                others.append(binding)
            else:
                calls[called] = binding
        if sorted(calls) != sorted(self.order):
            raise IllegalDecision(
                f"an order of {len(self.order)} sub-graphs: expected each of the model's "
                f"{len(calls)} once"
            )
        others = self._emit_ready(others)
        for name in self.order:
            if missing := self._missing(calls[name]):
                raise IllegalDecision(
                    f"the order calls sub-graph {name} before the producer of {missing[0].name}, "
                    f"which it reads: put the producer first"
                )
            self.mapping[calls[name].var] = self.copy(calls[name])
            others = self._emit_ready(others)

    def _missing(self, binding: relax.VarBinding) -> list[Var]:
        """Return the operands of a binding that are not emitted yet."""
        read = (leaf for leaf in leaves(binding.value) if isinstance(leaf, Var))
        return [var for var in read if var not in self.mapping]

    def _emit_ready(self, bindings: Sequence[relax.VarBinding]) -> list[relax.VarBinding]:
        """Emit the bindings whose operands are emitted; returns the remaining ones."""
        waiting = []
        for binding in bindings:
            if self._missing(binding):
                waiting.append(binding)
            else:
                self.mapping[binding.var] = self.copy(binding)
        return waiting


def _called(module: tvm.IRModule, binding: relax.VarBinding) -> SubgraphId | None:
    """Return the sub-graph that a binding calls; None if it calls none."""
    callee = binding.value.op if isinstance(binding.value, Call) else None
    return subgraph_id(module[callee]) if isinstance(callee, GlobalVar) else None


@tvm.transform.module_pass(opt_level=0, name="OrderSubgraphs")
@dataclass(frozen=True)
class OrderSubgraphs(ModulePass):
    """Call sub-graphs in a given order.

    ``a = s0(x); b = s1(a); c = s2(a)``, order s0, s2, s1 → ``a = s0(x); c = s2(a); b = s1(a)``.

    *Requires* stage 1. *Ensures* the same values. Any other binding of `main` directly follows its
    last operand.
    """

    order: Sequence[SubgraphId]
    """All sub-graphs, each once and after its producers."""

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Reorder `main` of `module`.

        Raises
        ------
        IllegalDecision
            If the order names other sub-graphs, or breaks a dependence.
        """
        return _Ordering(module, self.order).run()
