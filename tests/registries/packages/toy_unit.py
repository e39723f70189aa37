"""A compute unit from outside the package: ReLU, computed by numpy. A test installs it through an entry point."""

from __future__ import annotations

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GlobalVar

from layoutsel.units.base import Unit
from tvm_passes.backends import Backend
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline
from tvm_passes.ir import main_bindings, op_name, substitute


@tvm_ffi.register_global_func("toy.relu", override=True)
def toy_relu(x: tvm.runtime.Tensor, out: tvm.runtime.Tensor) -> None:
    """Compute `out` from `x`."""
    out.copyfrom(np.maximum(x.numpy(), 0))


def supports(function: relax.Function, decision: Decision) -> Decline | None:
    """Only a lone ReLU."""
    operators = [op_name(binding.value) for binding in main_bindings(function)]
    if operators == ["nn.relu"]:
        return None
    return Decline(
        subgraph=str(function.attrs["layoutsel.subgraph"]),
        operator=operators[0],
        decision=str(decision),
        got=operators[0],
        expected="nn.relu alone",
    )


@tvm.transform.module_pass(opt_level=0, name="LowerToy")
class LowerToy:
    """Calls of this unit's functions become calls of ``toy.relu``."""

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Lower `main`."""
        mine = {
            gv
            for gv, f in module.functions.items()
            if f.attrs and str(f.attrs.get("layoutsel.unit")) == "toy"
        }
        main = module["main"]
        rest = {
            gv: f for gv, f in module.functions.items() if gv not in mine and gv.name_hint != "main"
        }
        builder = relax.BlockBuilder(tvm.IRModule(rest, attrs=module.attrs))
        mapping: dict[relax.Expr, relax.Expr] = {}
        with builder.function("main", main.params):
            with builder.dataflow():
                for binding in main_bindings(main):
                    value = substitute(binding.value, mapping.get)
                    if (
                        isinstance(value, Call)
                        and isinstance(value.op, GlobalVar)
                        and value.op in mine
                    ):
                        value = relax.call_dps_packed(
                            "toy.relu", relax.Tuple(value.args), binding.var.ty
                        )
                    mapping[binding.var] = builder.emit(value)
                output = builder.emit_output(substitute(main.body.body, mapping.get))
            builder.emit_func_output(output)
        return builder.finalize()


UNIT = Unit(
    backend=Backend(name="toy", supports=supports, lower=lambda _target: LowerToy()),
    offers=lambda _subgraph: iter([Decision(unit="toy")]),
)
