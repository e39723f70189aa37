"""The runtime module: packing, serialisation, errors, threads, the stock code generation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm
from networks import (
    arrays,
    call,
    functions,
    machine,
    merged,
    network,
    run_onednn,
    run_reference,
    weight,
)
from tvm.relax import op

from layoutsel.units.layouts import packed_layout
from tvm_passes.decision import Decision
from tvm_passes.onednn import LowerOnednn, available, set_num_threads, supports
from tvm_passes.onednn.lower import create_module, emit_partition
from tvm_passes.onednn.plugin import function
from tvm_passes.partition import PartitionSubgraphs

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

IMAGE = (1, 32, 8, 8)
NHWC = Decision(unit="onednn", layout="NHWC")


def two_layers(x):
    hidden = op.nn.relu(op.nn.conv2d(x, weight(64, 32, 3, 3), padding=1))
    return op.nn.conv2d(hidden, weight(32, 64, 1, 1))


def weights_of(module):
    lowered = LowerOnednn()(merged(module, NHWC))
    return lowered, external_arguments(lowered)[1:]


def external_arguments(lowered):
    return lowered["main"].body.blocks[0].bindings[0].value.args[1].fields


def test_weights_are_packed_and_opaque():
    lowered, weights = weights_of(network(two_layers, IMAGE))
    assert [len(weight.ty.shape) for weight in weights] == [1, 1]
    graph = json.loads(lowered.attrs["external_mods"][0].inspect_source())
    assert all(tensor["packed"] for tensor in graph["tensors"] if "packable" in tensor)


def test_no_partition_is_no_change():
    module = network(op.nn.relu, IMAGE)
    assert LowerOnednn()(module).same_as(module)


def test_input_is_not_changed():
    module = merged(network(two_layers, IMAGE), NHWC)
    before = module.script()
    LowerOnednn()(module)
    assert module.script() == before


_RUN = """
import sys
import numpy as np
from tvm_passes.onednn import load
load()
import tvm
from tvm import relax
vm = relax.VirtualMachine(tvm.runtime.load_module(sys.argv[1]), tvm.cpu())
x = np.load(sys.argv[2])
np.save(sys.argv[3], vm["main"](tvm.runtime.tensor(x)).numpy())
"""


def test_runs_in_another_process(tmp_path: Path):
    module = network(two_layers, IMAGE)
    (x,) = arrays(IMAGE)
    lowered = LowerOnednn()(merged(module, NHWC))
    library, given, result = (tmp_path / name for name in ("lib.so", "x.npy", "y.npy"))
    tvm.compile(lowered, "llvm", relax_pipeline="default_build").export_library(str(library))
    np.save(given, x)
    subprocess.run([sys.executable, "-c", _RUN, library, given, result], check=True)
    np.testing.assert_allclose(np.load(result), run_reference(module, [x])[0], rtol=2e-5, atol=2e-5)


def test_weight_packed_otherwise_is_packed_again():
    """As on a machine where oneDNN prefers another form."""
    module = merged(network(lambda x: op.nn.conv2d(x, weight(64, 32, 3, 3)), IMAGE), NHWC)
    graph = emit_partition("p0", module["p0"])
    (tensor,) = graph.weights()
    plain = Decision(unit="onednn", layout=packed_layout())
    other = merged(network(lambda x: op.nn.conv2d(x, weight(64, 32, 3, 3)), IMAGE), plain)
    lowered = LowerOnednn()(other)
    text = json.loads(lowered.attrs["external_mods"][0].inspect_source())
    (tensor.packed,) = [item["packed"] for item in text["tensors"] if "packable" in item]
    packed = external_arguments(lowered)[1].value
    (x,) = arrays(IMAGE)
    y = tvm.runtime.empty((1, 64, 6, 6), "float32")
    runtime = create_module(graph)
    expected = run_onednn(
        network(lambda x: op.nn.conv2d(x, weight(64, 32, 3, 3)), IMAGE), [x], NHWC
    )
    params = {"input": tvm.runtime.tensor(x), "weight": packed}
    storages = {s.index: s.kind for s in _storages(graph) if s.kind in params}
    runtime["p0"](*(params[storages[index]] for index in sorted(storages)), y)
    np.testing.assert_allclose(y.numpy(), expected[0], rtol=2e-5, atol=2e-5)


def _storages(graph):
    tensors = [tensor for node in graph.nodes for tensor in node.reads()]
    return {tensor.storage for tensor in tensors}


def test_unknown_packed_form_names_it():
    module = merged(network(lambda x: op.nn.conv2d(x, weight(64, 32, 3, 3)), IMAGE), NHWC)
    graph = emit_partition("p0", module["p0"])
    graph.weights()[0].packed = "dims 1; padded 1; strides 1; blocks; axes;"
    with pytest.raises(RuntimeError, match="no oneDNN format describes the packed weight"):
        create_module(graph)["p0.steps"]()


def test_error_names_subgraph_and_operator():
    module = merged(network(lambda x: op.nn.conv2d(x, weight(64, 32, 3, 3)), IMAGE), NHWC)
    graph = emit_partition("p0", module["p0"])
    node = next(node for node in graph.nodes if node.op == "convolution")
    node.attrs["strides"] = [5, 5]
    with pytest.raises(RuntimeError, match=r"sub-graph s0 \(nn\.conv2d\) on onednn: convolution"):
        create_module(graph)["p0.steps"]()


def test_thread_count_can_change_between_calls():
    module = network(two_layers, IMAGE)
    (x,) = arrays(IMAGE)
    vm = machine(LowerOnednn()(merged(module, NHWC)))
    expected = run_reference(module, [x])[0]
    try:
        for count in (1, 2, 1):
            set_num_threads(count)
            assert function("layoutsel.get_num_threads")() == count
            np.testing.assert_allclose(call(vm, [x])[0], expected, rtol=2e-5, atol=2e-5)
    finally:
        set_num_threads(0)


DECLINES = {
    "type": (lambda x: op.astype(x, "float16"), "float32", NHWC),
    "operator": (op.sin, "one of its operators", NHWC),
    "precision": (
        op.nn.relu,
        "f32 or bf16 or split-bf16 or int8",
        Decision(unit="onednn", precision="fp8"),
    ),
    "algorithm": (
        op.nn.relu,
        "direct or alt1",
        Decision(unit="onednn", algorithm="winograd"),
    ),
    "resize": (
        lambda x: op.image.resize2d(x, (9, 9), layout="NCHW", method="cubic"),
        "linear with half_pixel, or nearest by whole factors",
        NHWC,
    ),
    "implementation": (
        lambda x: op.nn.conv2d(x, weight(30, 32, 3, 3)),
        "an optimised implementation",
        Decision(unit="onednn", layout="NCHW16c"),
    ),
}


@pytest.mark.parametrize("name", DECLINES)
def test_declines_with_reason(name):
    body, expected, decision = DECLINES[name]
    (checked,) = functions(PartitionSubgraphs()(network(body, IMAGE))).values()
    decline = supports(checked, decision)
    assert decline is not None
    assert decline.subgraph == "s0"
    assert decline.expected == expected


def test_second_implementation_is_another_one():
    module = network(lambda x: op.nn.relu(op.nn.conv2d(x, weight(64, 32, 3, 3))), IMAGE)
    (x,) = arrays(IMAGE)
    names = []
    for algorithm in ("direct", "alt1"):
        decision = Decision(unit="onednn", layout="NHWC", algorithm=algorithm)
        runtime = LowerOnednn()(merged(module, decision)).attrs["external_mods"][0]
        steps = json.loads(runtime["p0.steps"]())
        names.append(next(s["implementation"] for s in steps if s["primitive"] == "convolution"))
        (result,) = run_onednn(module, [x], decision)
        np.testing.assert_allclose(result, run_reference(module, [x])[0], rtol=2e-5, atol=2e-5)
    assert names[0] != names[1]
