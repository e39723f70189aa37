"""Importing takes the weights' memory about twice, however they come; a session then leaves them in files."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from layoutsel.compile import importing
from layoutsel.compile.session import Session
from layoutsel.model import import_model
from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, leaves, main_bindings

WIDTHS = (4096, 4096, 512)
WEIGHT_MB = sum(4 * a * b for a, b in itertools.pairwise(WIDTHS)) / 1e6
"""Of the network whose memory is measured: 75 MB, most of them one matrix, as in vgg19."""
FURTHER_MB = 60
"""Graph, code that is imported on first use, and what the C library keeps."""

MEASURE = """
import json, pathlib, sys
from layoutsel.compile.session import Session
def memory(name):
    # Not ru_maxrss, which a child inherits from the process of the tests.
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6
before = memory("VmRSS")
source = sys.argv[1]
if sys.argv[2] == "loaded":
    import onnx
    source = onnx.load(source)
    before = memory("VmRSS")
session = Session.open(source)
print(json.dumps({"peak": memory("VmHWM") - before, "left": memory("VmRSS") - before}))
"""


def network(widths: tuple[int, ...]) -> onnx.ModelProto:
    """Fully connected layers whose matrices are stored transposed, as exporters write them: the import turns them."""
    rng = np.random.default_rng(0)
    sizes = list(itertools.pairwise(widths))
    weights = [
        numpy_helper.from_array(rng.standard_normal((out, within), np.float32), f"w{i}")
        for i, (within, out) in enumerate(sizes)
    ]
    biases = [
        numpy_helper.from_array(rng.standard_normal(out, np.float32), f"b{i}")
        for i, (_, out) in enumerate(sizes)
    ]
    names = ["x", *(f"t{i}" for i in range(len(sizes) - 1)), "y"]
    nodes = [
        helper.make_node("Gemm", [names[i], f"w{i}", f"b{i}"], [names[i + 1]], transB=1)
        for i in range(len(sizes))
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, widths[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, widths[-1]])
    graph = helper.make_graph(nodes, "layers", [x], [y], [*weights, *biases])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("import") / "large.onnx"
    onnx.save(network(WIDTHS), file)
    return file


@pytest.mark.parametrize(("form", "times"), [("file", 2), ("loaded", 2)])
def test_importing_takes_about_twice_the_weights_and_leaves_them_in_files(path, form, times):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), form],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["peak"] <= times * WEIGHT_MB + FURTHER_MB
    assert measured["left"] <= FURTHER_MB


def constants(module) -> list[np.ndarray]:
    bindings = main_bindings(module["main"])
    found = [leaf for b in bindings for leaf in leaves(b.value) if isinstance(leaf, Constant)]
    return [array_of(constant) for constant in found]


def test_weights_in_files_are_the_same_network(monkeypatch):
    model = network((24, 300, 7))
    usual = import_model(model)
    monkeypatch.setattr(importing, "STORED_BYTES", 1)
    session = Session.open(model, threads=1)
    assert session.stored is not None
    assert session.model.content_hash == usual.content_hash
    ours, theirs = constants(session.model.module), constants(usual.module)
    assert len(ours) == len(theirs) > 1
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, two)
