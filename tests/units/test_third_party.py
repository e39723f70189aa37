"""A third party's unit: installed through an entry point, planned with, built, run, and declined with its reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import numpy as np, onnx
from onnx import TensorProto, helper
import layoutsel

def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 8, 8])

graph = helper.make_graph(
    [helper.make_node("Relu", ["x"], ["r"], name="first"),
     helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[1, 1]),
     helper.make_node("Relu", ["p"], ["y"], name="second")],
    "toy", [value("x")], [value("y"), value("p")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
compiled = layoutsel.optimize(
    model, units=("cpu", "toy"), cost="roofline", pins=["nn.relu=toy"], verify_speed=False)
decisions = [entry["decision"] for entry in compiled.plan["subgraphs"]]
x = np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype("float32")
np.testing.assert_array_equal(compiled(x)[0], np.maximum(x, 0))
print(decisions)
try:
    layoutsel.plan(model, units=("cpu", "toy"), cost="roofline", pins=["pool=toy"])
except layoutsel.LayoutselError as error:
    print(error)
"""


def test_unit_from_an_entry_point(tmp_path):
    info = tmp_path / "toy_unit-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-unit\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[layoutsel.units]\ntoy = toy_unit:UNIT\n")
    folders = [str(tmp_path), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    decisions, error = done.stdout.splitlines()[:2]
    assert decisions.count("toy:") == 2
    assert "expected nn.relu alone" in error
