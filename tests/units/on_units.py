"""Small ONNX models, every sub-graph of which one unit computes where it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
import tvm
from onnx import helper, numpy_helper

from layoutsel.building.build import generate_code
from layoutsel.device.virtual_machine import virtual_machine
from layoutsel.model.import_onnx import import_model
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.onednn import plugin as onednn
from tvm_passes.opencl import plugin as opencl
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.pipeline import lower
from tvm_passes.place_devices import devices_of
from tvm_passes.rewrite_layouts import subgraph_id

CPU = Decision(unit="cpu")
HALF, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT

UNITS = [
    "cpu",
    pytest.param(
        "onednn",
        marks=pytest.mark.skipif(onednn.available() is not None, reason="no oneDNN plugin"),
    ),
    pytest.param(
        "opencl", marks=pytest.mark.skipif(not opencl.devices(), reason="no OpenCL device")
    ),
]
"""Every unit that may be here; those with a precision of their own only are tested with it."""


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None,
    elem: int = FLOAT,
    opset: int = 20,
) -> onnx.ModelProto:
    """A model whose inputs have the types and shapes of the given arrays."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in inputs.items()
        ],
        [helper.make_tensor_value_info(name, elem, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made)


def decisions_for(
    module: tvm.IRModule, wanted: Decision
) -> tuple[dict[SubgraphId, Decision], list[str]]:
    """`wanted` for each sub-graph of a partitioned module that its unit supports so, and what it declines."""
    chosen: dict[SubgraphId, Decision] = {}
    declines: list[str] = []
    for function in module.functions.values():
        subgraph = subgraph_id(function)
        if subgraph is None:
            continue
        declined = BACKENDS[wanted.unit].supports(function, wanted)
        chosen[subgraph] = CPU if declined else wanted
        if declined:
            declines.append(str(declined))
    return chosen, declines


def run(
    source: onnx.ModelProto,
    inputs: Mapping[str, np.ndarray],
    wanted: Decision,
    *,
    may_decline: bool = False,
) -> list[np.ndarray]:
    """The results of a model on a unit, its sub-graphs forced there; at least one is supported, unless it `may_decline`."""
    module = PartitionSubgraphs()(import_model(source).module)
    chosen, declines = decisions_for(module, wanted)
    assert may_decline or wanted in chosen.values(), declines
    target = host_target()
    lowered = lower(module, chosen, target)
    machine = virtual_machine(generate_code(lowered, target).jit(), devices_of(lowered))
    result = machine["main"](*(tvm.runtime.tensor(array) for array in inputs.values()))
    tensors = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return [tensor.numpy() for tensor in tensors]
