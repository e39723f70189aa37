"""Sub-graphs of precision bf16: operands and results in bfloat16, sums in float32."""

from __future__ import annotations

import json
from dataclasses import replace

import ml_dtypes
import pytest
import tvm
from networks import (
    arrays,
    functions,
    merged,
    network,
    rounded,
    run_onednn,
    run_reference,
    weight,
    with_rounded_constants,
)
from test_fusion import ONE_PRIMITIVE, dense_block, local_response, residual_block
from test_operators import CONVOLUTIONS, ELEMENTWISE, IMAGE, IMAGE_OPERATORS, OTHER
from tvm import relax
from tvm.relax import op

from layoutsel.building.build import generate_code, lower_decisions
from layoutsel.building.functions import Functions
from layoutsel.model.graph import read_graph
from layoutsel.runtime.arrays import to_tensor
from tests.reference import relative_error
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu.host import has_bf16, host_target
from tvm_passes.decision import Decision
from tvm_passes.layout import convert
from tvm_passes.onednn import LowerOnednn, available, supports
from tvm_passes.onednn.lower import create_module, emit_partition
from tvm_passes.partition import PartitionSubgraphs

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.skipif(not has_bf16(host_target()), reason="a CPU without AVX512_BF16"),
]

LAYOUTS = ("NCHW", "NHWC", "NCHW16c")
ONE_ROUNDING = 2.0**-8
"""Relative error of a value that is rounded to bfloat16 once."""


def bf16(layout="NHWC"):
    return Decision(unit="onednn", layout=layout, precision="bf16")


def check(body, shapes, *choices, tolerance=ONE_ROUNDING):
    module = with_rounded_constants(network(body, *shapes))
    inputs = [rounded(array) for array in arrays(*shapes)]
    results = run_onednn(module, inputs, *choices)
    for result, expected in zip(results, run_reference(module, inputs), strict=True):
        assert result.dtype == expected.dtype
        assert relative_error(result, expected) < tolerance


def declines(body, shapes, decision):
    """Why oneDNN does not run `body` under `decision`."""
    partitioned = PartitionSubgraphs()(network(body, *shapes))
    found = (supports(function, decision) for function in functions(partitioned).values())
    return [decline for decline in found if decline is not None]


def skip_declined(body, shapes, decision):
    """Skip where oneDNN has only a reference implementation, which depends on the processor."""
    for decline in declines(body, shapes, decision):
        assert decline.got.startswith("implementation ref")
        pytest.skip(str(decline))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name, layout):
    skip_declined(CONVOLUTIONS[name], [IMAGE], bf16(layout))
    check(CONVOLUTIONS[name], [IMAGE], bf16(layout))


@pytest.mark.parametrize("layout", [*LAYOUTS, "NCHW32c"])
@pytest.mark.parametrize("name", IMAGE_OPERATORS)
def test_image_operator(name, layout):
    skip_declined(IMAGE_OPERATORS[name], [IMAGE], bf16(layout))
    check(IMAGE_OPERATORS[name], [IMAGE], bf16(layout))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name):
    # Where |x| is rounded before a square root or a logarithm, the latter's relative error is larger.
    check(ELEMENTWISE[name], [(2, 24)], bf16("NCHW"), tolerance=2 * ONE_ROUNDING)


@pytest.mark.parametrize("name", OTHER)
def test_other(name):
    body, shapes = OTHER[name]
    skip_declined(body, shapes, bf16("NCHW"))
    check(body, shapes, bf16("NCHW"))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW16c"])
@pytest.mark.parametrize("name", ONE_PRIMITIVE)
def test_fused(name, layout):
    check(ONE_PRIMITIVE[name], [(1, 32, 8, 8)], bf16(layout))
    module = network(ONE_PRIMITIVE[name], (1, 32, 8, 8))
    graph = emit_partition("p0", merged(module, bf16(layout))["p0"])
    operators = [node.op for node in graph.nodes if node.op != "reorder"]
    assert operators == ["convolution"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_local_response_normalisation(layout):
    skip_declined(local_response, [(1, 32, 8, 8)], bf16(layout))
    check(local_response, [(1, 32, 8, 8)], bf16(layout))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NCHW16c"])
def test_nested_concat(layout):
    check(dense_block, [(1, 32, 8, 8)], bf16(layout))


def test_dead_residual_is_summed_in_place():
    module = network(residual_block, (1, 32, 8, 8))
    graph = emit_partition("p0", merged(module, bf16())["p0"])
    (convolved,) = [node for node in graph.nodes if node.op == "convolution"]
    assert [post_op.kind for post_op in convolved.post_ops] == ["sum", "eltwise"]
    check(residual_block, [(1, 32, 8, 8)], bf16(), tolerance=2 * ONE_ROUNDING)


def classifier(x):
    for seed in (1, 2):
        y = op.nn.relu(op.nn.conv2d(x, weight(32, 32, 3, 3, seed=seed), padding=1))
        y = op.add(op.nn.conv2d(y, weight(32, 32, 1, 1, seed=seed)), weight(1, 32, 1, 1))
        x = op.nn.relu(op.add(y, x))
    x = op.concat([op.nn.max_pool2d(x, [3, 3], [1, 1], [1, 1]), x], axis=1)
    x = op.reshape(op.nn.adaptive_avg_pool2d(x, [1, 1]), (1, 64))
    return op.add(op.matmul(x, weight(64, 10)), weight(10))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW16c"])
def test_chain(layout):
    check(classifier, [(1, 32, 8, 8)], bf16(layout), tolerance=3 * ONE_ROUNDING)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW16c"])
def test_precisions_mix(layout):
    choices = [bf16(layout), Decision(unit="onednn", layout="NHWC"), bf16("NHWC"), bf16(layout)]
    check(classifier, [(1, 32, 8, 8)], *choices, tolerance=3 * ONE_ROUNDING)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW16c"])
def test_units_mix(layout):
    """Bfloat16 crosses between oneDNN and the CPU's own kernels as it is."""
    module = with_rounded_constants(network(classifier, (1, 32, 8, 8)))
    partitioned = PartitionSubgraphs()(module)
    graph, functions = read_graph(partitioned), Functions(partitioned)
    decisions = {}
    for subgraph in graph.subgraphs:
        choices = [bf16(layout)] if subgraph.anchor == "nn.conv2d" else []
        choices += [replace(bf16(order), unit="cpu") for order in (layout, "NCHW")]
        choices += [bf16("NCHW")]
        function = functions[subgraph.id]
        legal = (d for d in choices if BACKENDS[d.unit].supports(function, d) is None)
        decisions[subgraph.id] = next(legal)
    assert {decision.unit for decision in decisions.values()} == {"cpu", "onednn"}
    lowered = lower_decisions(functions, decisions)
    assert lowered.decisions == decisions
    weights = tvm.runtime.convert([tvm.runtime.tensor(w) for w in lowered.weights])
    vm = relax.VirtualMachine(generate_code(lowered.module, lowered.target), tvm.cpu())
    (x,) = (rounded(array) for array in arrays((1, 32, 8, 8)))
    result = vm["main"](tvm.runtime.tensor(x), weights)
    result = result if isinstance(result, tvm.runtime.Tensor) else result[0]
    assert relative_error(result.numpy(), run_reference(module, [x])[0]) < 3 * ONE_ROUNDING


def test_what_lies_between_subgraphs_is_bfloat16():
    module = network(classifier, (1, 32, 8, 8))
    graph = emit_partition("p0", merged(module, bf16())["p0"])
    kinds = {
        tensor.dtype
        for node in graph.nodes
        for tensor in (*node.inputs[:1], node.output)
        if tensor.storage.kind == "temp"
    }
    assert kinds == {"bfloat16"}
    # To main's float32; from there it is the CPU that rounds.
    assert [node.op for node in graph.nodes].count("reorder") == 1


def test_weights_are_packed_in_bfloat16():
    module = network(lambda x: op.nn.conv2d(x, weight(64, 32, 3, 3)), (1, 32, 8, 8))
    lowered = LowerOnednn()(merged(module, bf16()))
    _rounding, partition, *_ = lowered["main"].body.blocks[0].bindings
    (packed,) = partition.value.args[1].fields[1:]
    assert packed.value.numpy().nbytes == 64 * 32 * 9 * 2
    graph = json.loads(lowered.attrs["external_mods"][0].inspect_source())
    (tensor,) = [tensor for tensor in graph["tensors"] if "packable" in tensor]
    assert (tensor["type"], tensor["plain_type"]) == ("bfloat16", "float32")
    assert tensor["packed"].startswith("bf16")


@pytest.mark.parametrize("source", ["NCHW", "NHWC", "NCHW16c", "NCHW32c"])
@pytest.mark.parametrize("destination", ["NCHW", "NHWC", "NCHW8c", "NCHW32c"])
def test_transforms_convert(source, destination):
    """A partition of one transform, from each order to each, into bfloat16 and back."""
    check(op.abs, [(1, 32, 4, 6)], bf16(source), tolerance=1e-6)

    def both(x):
        return op.abs(op.nn.max_pool2d(op.exp(x), [1, 1], [1, 1]))

    choices = [Decision(unit="onednn", layout=source), Decision(unit="onednn"), bf16(destination)]
    check(both, [(1, 32, 4, 6)], *choices)


def test_plain_weight_is_packed_on_first_use():
    """As the stock code generation passes it: float32, which the primitive wants in bfloat16."""
    module = with_rounded_constants(
        network(lambda x: op.nn.conv2d(x, weight(64, 32, 3, 3)), (1, 32, 8, 8))
    )
    graph = emit_partition("p0", merged(module, bf16())["p0"])
    (x,) = (rounded(array) for array in arrays((1, 32, 8, 8)))
    filters = module["main"].body.blocks[0].bindings[0].value.args[1]
    y = tvm.runtime.empty((1, 64, 6, 6), "float32")
    stored = to_tensor(convert(x, "NCHW", "NHWC").astype(ml_dtypes.bfloat16))
    create_module(graph)["p0"](stored, filters.value, y)
    assert relative_error(y.numpy(), run_reference(module, [x])[0]) < ONE_ROUNDING


DECLINES = {
    "packed-by-8": (CONVOLUTIONS["3x3"], IMAGE, "NCHW8c"),
    "packed-by-32": (CONVOLUTIONS["1x1"], IMAGE, "NCHW32c"),
    "pooling": (IMAGE_OPERATORS["max_pool"], IMAGE, "NCHW32c"),
    "reduction": (lambda x: op.sum(x, [1]), (3, 10, 4), "NCHW"),
}


@pytest.mark.parametrize("name", DECLINES)
def test_declines_without_optimised_implementation(name):
    body, shape, layout = DECLINES[name]
    (decline,) = declines(body, [shape], bf16(layout))
    assert decline.got == "implementation ref:any"
    assert decline.expected == "an optimised implementation"


def test_declines_on_older_processors(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    (decline,) = declines(CONVOLUTIONS["3x3"], [IMAGE], bf16())
    assert decline.got == "a CPU without AVX512_BF16"


def test_tuple_result_is_converted():
    check(lambda x: op.split(op.nn.relu(x), 2, axis=1), [(1, 32, 4, 4)], bf16())


def test_f32_tensors_stay_float32():
    decision = Decision(unit="onednn", layout="NHWC")
    graph = emit_partition("p0", merged(network(classifier, (1, 32, 8, 8)), decision)["p0"])
    tensors = [tensor for node in graph.nodes for tensor in (*node.reads(), node.output)]
    assert {tensor.dtype for tensor in tensors} == {"float32"}
