"""Names of kernels on devices: a schedule may leave its own name on a kernel, and a module holds each name once."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper

from layoutsel.model import import_model
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision
from tvm_passes.gpu.lower import LowerGpu
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import RewriteLayouts, subgraph_id

WEIGHT = numpy_helper.from_array(np.ones((16, 16, 3, 3), "float32"), "w")


def convolution_and_celu():
    """An activation that reads its argument twice: the convolution is a kernel of its own."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Celu", ["c"], ["y"], alpha=0.3),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 8, 8])] for name in "xy"
    )
    graph = helper.make_graph(nodes, "celu", inputs, outputs, [WEIGHT])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_no_kernel_keeps_the_name_of_its_schedule(layout):
    module = PartitionSubgraphs()(import_model(convolution_and_celu()).module)
    ids = [id_ for f in module.functions.values() if (id_ := subgraph_id(f)) is not None]
    decision = Decision(unit="opencl", layout=layout)
    decided = RewriteLayouts(dict.fromkeys(ids, decision))(module)
    target = tvm.target.Target("opencl", host=host_target())
    lowered = LowerGpu("opencl", lambda _index: target)(decided)
    assert any(gv.name_hint.startswith("opencl_") for gv in lowered.functions)
