"""Stage 4 for the unit ``amx``."""

from __future__ import annotations

import tvm
from tvm.target import Target

from tvm_passes.amx.plan import plan_amx
from tvm_passes.cpu.lower import Lowering

UNIT = "amx"


@tvm.transform.module_pass(opt_level=0, name="LowerAmx")
class LowerAmx:
    """Give every sub-graph of the unit ``amx`` its kernel.

    ``s3(x, w)`` → ``call_tir(amx_conv2d, (x, packed w))``.

    *Requires* a stage-2 module. *Ensures* that `main` calls no function of the unit any more; weights are packed constants.

    Parameters
    ----------
    target
        The LLVM target that code will be generated for.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Lower `module`."""
        return Lowering(module, self.target, UNIT, plan_amx).lower()
