"""ONNX Runtime as it is used here: no telemetry, weights in memory, in one place."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import layoutsel
from layoutsel.references.reference_engine import import_onnxruntime, open_session

_RUNS_A_MODEL = """
import os, sys
from layoutsel.model.import_load import load_model
from layoutsel.references.onnx_reference import onnxruntime_reference
import numpy as np
model = load_model(sys.argv[1])
before = dict(os.environ)
onnxruntime_reference(model, {"x": np.ones((1, 4), np.float32)})
assert dict(os.environ) == before
"""


def model_of(**weights) -> ModelProto:
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    nodes = [
        helper.make_node("Cast", [name], [f"{name}_f32"], to=TensorProto.FLOAT) for name in weights
    ]
    nodes.append(helper.make_node("Relu", ["x"], ["y"]))
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("y", *(f"{name}_f32" for name in weights))
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph(nodes, "model", [x], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("cache", ["/proc/cache", "cache"])
def test_no_telemetry(tmp_path, cache):
    (tmp_path / "model.onnx").write_bytes(model_of().SerializeToString())
    for name in ("cache", "tmp", "home"):
        (tmp_path / name).mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment |= {
        "XDG_CACHE_HOME": cache if cache.startswith("/") else str(tmp_path / cache),
        "TMPDIR": str(tmp_path / "tmp"),
        "HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-c", _RUNS_A_MODEL, str(tmp_path / "model.onnx")],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    left = [file.name for file in tmp_path.rglob("*") if file.is_file()]
    assert left == ["model.onnx"]


def test_it_is_imported_in_one_place():
    package = Path(layoutsel.__file__).parent
    files = [*package.rglob("*.py"), *(package.parent / "tvm_passes").rglob("*.py")]
    importing = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "onnxruntime" for name in names):
                importing.add(file.name)
    assert importing == {"reference_engine.py"}


def test_weights_apart_from_a_model_that_cannot_be_serialized():
    generator = np.random.default_rng(0)
    weights = {
        "f32": generator.standard_normal((64, 64)).astype(np.float32),
        "bf16": generator.standard_normal((64, 64)).astype(ml_dtypes.bfloat16),
        "int8": generator.integers(-9, 9, (64, 128)).astype(np.int8),
        "small": np.ones(3, np.float32),
    }
    model = model_of(**weights)
    before = model.SerializeToString()
    options = import_onnxruntime().SessionOptions()
    session = open_session(model, options, most_bytes=1000)
    _, *found = session.run(None, {"x": np.ones((1, 4), np.float32)})
    for got, want in zip(found, weights.values(), strict=True):
        np.testing.assert_array_equal(got, want.astype(np.float32))
    assert set(session.weights) == {"f32", "bf16", "int8"}
    assert model.SerializeToString() == before
