"""What follows a pooling: oneDNN misreads a full operand fused into it in plain layout."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax.op import add, maximum, multiply, nn, subtract

from layoutsel.building.build import generate_code, lower_decisions
from layoutsel.building.functions import Functions
from tests.reference import relative_error, run_relax
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision
from tvm_passes.partition import PartitionSubgraphs

pytestmark = pytest.mark.skipif(
    BACKENDS["onednn"].unavailable() is not None, reason=str(BACKENDS["onednn"].unavailable())
)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NCHW16c"])
@pytest.mark.parametrize("channels", [8, 32])
@pytest.mark.parametrize("operator", [add, multiply, subtract, maximum])
@pytest.mark.parametrize("pool", [nn.max_pool2d, nn.avg_pool2d])
def test_operand_of_a_pooling_is_read_rightly(pool, operator, channels, layout):
    ty = relax.TensorType((1, channels, 9, 9), "float32")
    x, y = relax.Var("x", ty), relax.Var("y", ty)
    builder = relax.BlockBuilder()
    with builder.function("main", [x, y]):
        with builder.dataflow():
            pooled = builder.emit(pool(x, (3, 3), (1, 1), (1, 1)))
            result = builder.emit_output(operator(pooled, y))
        builder.emit_func_output(result)
    module = builder.finalize()
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((1, channels, 9, 9)).astype("float32") for _ in range(2)]
    functions = Functions(PartitionSubgraphs()(module))
    decision = Decision(unit="onednn", layout=layout)
    decisions = {
        id_: decision
        if BACKENDS["onednn"].supports(function, decision) is None
        else Decision(unit="cpu")
        for id_, function in functions.items()
    }
    lowered = lower_decisions(functions, decisions)
    weights = tvm.runtime.convert([tvm.runtime.tensor(w) for w in lowered.weights])
    machine = relax.VirtualMachine(generate_code(lowered.module, lowered.target), tvm.cpu())
    got = machine["main"](*(tvm.runtime.tensor(a) for a in arrays), weights)
    first = got if isinstance(got, tvm.runtime.Tensor) else got[0]
    assert relative_error(first.numpy(), run_relax(module, arrays)[0]) < 1e-5
