"""Quantised models: products of integers whose results are those of ONNX Runtime, to the step."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import tvm
from networks import functions, network, weight
from quantizing import KINDS, NetworkBuilder, output_step, quantized, small_network
from tvm import relax
from tvm.relax import op

from layoutsel.building.build import generate_code, lower_decisions
from layoutsel.building.functions import Functions
from layoutsel.model import import_model
from layoutsel.model.graph import read_graph
from layoutsel.zoo.light_models import light_model
from tests.reference import before_softmax, random_feeds, relative_error, run_onnx
from tvm_passes.backends import BACKENDS
from tvm_passes.cancel_transforms import CancelTransforms
from tvm_passes.cpu.host import has_vnni, host_target
from tvm_passes.decision import Decision
from tvm_passes.onednn import available, supports
from tvm_passes.onednn.legality import subgraph_graph
from tvm_passes.onednn.scope import implementations
from tvm_passes.partition import PartitionSubgraphs

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.skipif(not has_vnni(host_target()), reason="a CPU without VNNI"),
]


def int8(layout="NHWC"):
    return Decision(unit="onednn", layout=layout, precision="int8")


CPU = Decision(unit="cpu")
IMAGE = (1, 32, 8, 8)


def read(model: onnx.ModelProto):
    """The imported model, its sub-graphs and their code."""
    imported = import_model(model)
    module = PartitionSubgraphs()(CancelTransforms()(imported.module))
    return imported, read_graph(module), Functions(module)


def first_legal(function: relax.Function, choices: Sequence[Decision]) -> Decision:
    return next(d for d in choices if BACKENDS[d.unit].supports(function, d) is None)


def run(model: onnx.ModelProto, *choices: Decision) -> tuple[np.ndarray, np.ndarray]:
    """The only output with each sub-graph under the first of `choices` that is legal, and ONNX Runtime's."""
    imported, graph, functions = read(model)
    decisions = {s.id: first_legal(functions[s.id], choices) for s in graph.subgraphs}
    lowered = lower_decisions(functions, decisions)
    assert lowered.decisions == decisions
    machine = relax.VirtualMachine(generate_code(lowered.module, lowered.target), tvm.cpu())
    feeds = random_feeds(imported.inputs)
    weights = tvm.runtime.convert([tvm.runtime.tensor(w) for w in lowered.weights])
    result = machine["main"](*(tvm.runtime.tensor(a) for a in feeds.values()), weights)
    result = result if isinstance(result, tvm.runtime.Tensor) else result[0]
    (expected,) = run_onnx(model, feeds)
    return result.numpy(), expected


def check(model: onnx.ModelProto, *choices: Decision) -> None:
    got, want = run(model, *choices)
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1.01 * output_step(model)
    assert np.abs(want).max() > 10 * output_step(model)


def operators(model: onnx.ModelProto, decision: Decision) -> dict[str, list[str]]:
    """oneDNN's primitives of each sub-graph, by its operators without those of quantisation."""
    _, graph, functions = read(model)
    found = {}
    for subgraph in graph.subgraphs:
        name = " ".join(o for o in subgraph.operators if not o.endswith("quantize"))
        nodes = subgraph_graph(functions[subgraph.id], decision).nodes
        found[name] = [node.op for node in nodes]
    return found


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("kind", KINDS)
def test_network(kind, layout):
    check(quantized(small_network(), kind), int8(layout), int8("NHWC"))


@pytest.mark.parametrize("kind", KINDS)
def test_everything_runs_on_integers(kind):
    _, graph, functions = read(quantized(small_network(), kind))
    for subgraph in graph.subgraphs:
        function = functions[subgraph.id]
        assert supports(function, int8()) is None
        tensors = [
            tensor
            for node in subgraph_graph(function, int8()).nodes
            for tensor in (*node.inputs[:1], node.output)
        ]
        # Only the model's own input and output are numbers.
        numbers = [t for t in tensors if t.dtype == "float32" and t.storage.kind == "temp"]
        assert not numbers


def test_one_primitive_for_each_product():
    found = operators(quantized(small_network(), "s8"), int8())
    assert found["nn.conv2d add"] == ["convolution"]
    assert found["nn.conv2d add add"] == ["convolution"]
    assert found["matmul add"] == ["matmul"]
    assert found["nn.max_pool2d"] == ["pooling"]
    assert found["mean"] == ["pooling"]


def test_cpu_runs_every_subgraph():
    check(quantized(small_network(), "s8"), CPU)


def test_units_mix():
    model = quantized(small_network(), "u8")
    _, graph, functions = read(model)
    half = {s.id for s in graph.subgraphs[::2]}
    decisions = {s.id: int8() if s.id in half else CPU for s in graph.subgraphs}
    lowered = lower_decisions(functions, decisions)
    assert lowered.decisions == decisions
    imported = import_model(model)
    feeds = random_feeds(imported.inputs)
    machine = relax.VirtualMachine(generate_code(lowered.module, lowered.target), tvm.cpu())
    weights = tvm.runtime.convert([tvm.runtime.tensor(w) for w in lowered.weights])
    result = machine["main"](*(tvm.runtime.tensor(a) for a in feeds.values()), weights)
    result = result if isinstance(result, tvm.runtime.Tensor) else result[0]
    (expected,) = run_onnx(model, feeds)
    assert np.abs(result.numpy() - expected).max() < 1.01 * output_step(model)


def dense_residual():
    b = NetworkBuilder()
    x = b.conv("x", 32, 32)
    for kernel in (1, 3):
        y = b.emit("Relu", b.conv(x, 32, 32, kernel))
        x = b.emit("Add", b.conv(y, 32, 32, kernel), x)
    return b.model(b.conv(x, 32, 32), IMAGE, IMAGE)


@pytest.mark.parametrize("kind", KINDS)
def test_residual_sums(kind):
    check(quantized(dense_residual(), kind), int8())


def test_dead_residual_is_summed_in_place():
    *_, functions = read(quantized(dense_residual(), "u8"))
    lowered = lower_decisions(functions, dict.fromkeys(functions, int8()))
    (module,) = lowered.module.attrs["external_mods"]
    nodes = json.loads(module.inspect_source())["nodes"]
    kinds = [[post_op["kind"] for post_op in node["post_ops"]] for node in nodes]
    assert sum("sum" in kind for kind in kinds) == 2


def matrix_product():
    b = NetworkBuilder()
    x = b.emit("Relu", b.emit("MatMul", "x", b.weight(48, 40)))
    x = b.emit("Add", b.emit("MatMul", x, b.weight(40, 24)), b.weight(24))
    return b.model(x, (2, 5, 48), (2, 5, 24))


@pytest.mark.parametrize("kind", KINDS)
def test_matmul(kind):
    check(quantized(matrix_product(), kind), int8("NCHW"))


def numbers_between():
    """Sigmoid and softmax are of numbers, so are products of activations."""
    b = NetworkBuilder()
    x = b.emit("MatMul", "x", b.weight(48, 40))
    x = b.emit("Mul", b.emit("Sigmoid", x), x)
    scores = b.emit("MatMul", x, b.emit("Transpose", x, perm=[0, 2, 1]))
    return b.model(b.emit("Softmax", scores, axis=-1), (2, 5, 48), (2, 5, 5))


def few_weights():
    """So few that they are part of the sub-graph."""
    b = NetworkBuilder()
    x = b.conv(b.emit("Relu", b.conv("x", 32, 8)), 8, 2, kernel=1)
    return b.model(x, IMAGE, (1, 2, 8, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_few_weights(kind):
    check(quantized(few_weights(), kind), int8(), int8("NCHW"))


@pytest.mark.parametrize("kind", KINDS)
def test_operators_of_numbers(kind):
    model = quantized(numbers_between(), kind)
    got, want = run(model, int8(), int8("NCHW"), Decision(unit="onednn"), CPU)
    assert relative_error(got, want) < 0.02


def branches():
    """Two convolutions of one map with fewer pixels than three tiles of AMX hold."""
    b = NetworkBuilder()
    x = b.conv("x", 64, 64)
    parts = [b.conv(x, 64, channels, kernel=1) for channels in (32, 128)]
    return b.model(b.emit("Concat", *parts, axis=1), (1, 64, 6, 6), (1, 160, 6, 6))


def test_small_maps():
    """Some of oneDNN's convolutions would write behind their results."""
    model = quantized(branches(), "s8")
    check(model, int8())
    *_, functions = read(model)
    for function in functions.values():
        text = subgraph_graph(function, int8()).to_json()
        assert "jit_1x1:avx512_core_amx" not in implementations(text)


def normalisations():
    b = NetworkBuilder()
    x = b.emit("LRN", b.emit("Relu", b.conv("x", 32, 32)), size=5, alpha=1e-2)
    statistics = [b.weight(32) for _ in range(3)]
    x = b.emit("BatchNormalization", x, *statistics, b.emit("Exp", statistics[0]))
    x = b.emit("Mul", x, b.weight(1, 32, 1, 1))
    return b.model(b.conv(x, 32, 32), IMAGE, IMAGE)


@pytest.mark.parametrize("kind", KINDS)
def test_normalisations(kind):
    check(quantized(normalisations(), kind), int8(), Decision(unit="onednn", layout="NHWC"))


def test_weights_stay_integers():
    *_, functions = read(quantized(dense_residual(), "s8"))
    lowered = lower_decisions(functions, dict.fromkeys(functions, int8()))
    integers = 32 * 32 * (4 * 9 + 2 * 1)
    assert sum(array.nbytes for array in lowered.weights) < 2 * integers


DECLINES = {
    "numbers": (Decision(unit="onednn", layout="NHWC"), "a float32 tensor"),
    "packed": (int8("NCHW16c"), "an optimised implementation"),
}


@pytest.mark.parametrize("name", DECLINES)
def test_declines(name):
    decision, expected = DECLINES[name]
    _, graph, functions = read(quantized(dense_residual(), "s8"))
    products = [s for s in graph.subgraphs if s.anchor == "nn.conv2d"]
    for subgraph in products:
        decline = supports(functions[subgraph.id], decision)
        assert decline is not None
        assert decline.expected == expected


def test_declines_what_is_not_quantised():
    partitioned = PartitionSubgraphs()(
        network(lambda x: op.nn.conv2d(x, weight(8, 32, 1, 1)), IMAGE)
    )
    (function,) = functions(partitioned).values()
    decline = supports(function, int8())
    assert decline is not None
    assert decline.got == "no quantised tensor"
    decline = BACKENDS["cpu"].supports(function, Decision(unit="cpu", precision="int8"))
    assert decline is not None
    assert decline.got == "precision int8"


def test_declines_on_older_processors(monkeypatch):
    _, graph, functions = read(quantized(dense_residual(), "s8"))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    decline = supports(functions[graph.subgraphs[1].id], int8())
    assert decline is not None
    assert decline.got == "a CPU without VNNI"


@pytest.mark.nightly
def test_resnet50_is_as_near_to_onnx_runtime_as_that_to_itself():
    """Fifty layers turn a value that lies between two steps into some steps of the result: there as here."""
    model = quantized(before_softmax(light_model("resnet50")), "s8", images=1)
    got, want = run(model, int8(), Decision(unit="onednn", layout="NHWC"))
    assert np.abs(got - want).max() < 2.01 * output_step(model)
    assert relative_error(got, want) < 0.02
