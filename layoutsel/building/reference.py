"""Reference kernel, timed together with every candidate; see :mod:`layoutsel.device.reference`."""

from __future__ import annotations

from functools import cache

import numpy as np
from tvm import relax
from tvm.target import Target

from layoutsel.building.candidate import Built, build_candidate
from layoutsel.device.reference import CHANNELS, SIDE
from tvm_passes.cpu import host_target
from tvm_passes.cpu.host import vector_unit
from tvm_passes.decision import Decision
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.units.entry import HOST_UNIT


def reference_kernel() -> Built:
    """Build the convolution, once per process and target; a target includes the threads."""
    return _kernel_for(str(host_target()))


@cache
def _kernel_for(config: str) -> Built:
    builder = relax.BlockBuilder()
    image = relax.TensorType((1, CHANNELS, SIDE, SIDE), "float32")
    x = relax.Var("x", image)
    weights = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS, 3, 3))
    w = relax.const(0.05 * weights.astype("float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(relax.op.nn.conv2d(x, w, padding=(1, 1)))
        builder.emit_func_output(output)
    module = PartitionSubgraphs()(builder.finalize())
    function = next(f for gv, f in module.functions.items() if gv.name_hint != "main")
    target = Target(config)
    packed = "NCHW16c" if vector_unit(target).lanes >= 16 else "NCHW8c"
    return build_candidate(function, Decision(unit=HOST_UNIT, layout=packed), target)
