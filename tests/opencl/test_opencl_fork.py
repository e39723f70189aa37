"""Drivers do not survive a fork: the child goes on without the device, or says so in one line; it never waits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from on_opencl import needs_device
from onnx import TensorProto, helper

import layoutsel

pytestmark = needs_device

FORK = """
import json, sys
path, folder = sys.argv[1:]
sys.path.insert(0, folder)
import numpy as np
from fork_scenarios import child
import layoutsel, layoutsel.device

def told(work):
    return child(lambda: str(np.asarray(work()).tolist()))

x = np.ones((1, 4), np.float32)
model, device = layoutsel.load(path), layoutsel.device.load(path)
wanted = str(model(x).tolist())
print(json.dumps({
    "wanted": wanted,
    "used before": told(lambda: model(x)),
    "loads its own": told(lambda: layoutsel.load(path)(x)),
    "without numpy": told(lambda: np.from_dlpack(device(x))),
    "only ends": child(lambda: "ends"),
}))
"""
SCENARIOS = Path(__file__).parents[1] / "runtime"


def told(folder: Path, fallback: str | None) -> dict[str, str]:
    """What forked processes say of a model that the parent uses on the device."""
    square = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["y"])],
        "square",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
    )
    model = layoutsel.optimize(
        helper.make_model(square, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        cost="roofline",
        verify_speed=False,
        units=["opencl"],
        fallback=fallback,
    )
    path = model.save(folder / "square.so")
    program = [sys.executable, "-c", FORK, path, SCENARIOS]
    return json.loads(
        subprocess.run(program, check=True, stdout=subprocess.PIPE, timeout=100).stdout
    )


@pytest.mark.parametrize("fallback", [None, "cpu"])
def test_no_child_waits(tmp_path, fallback):
    found = told(tmp_path, fallback)
    wanted = found.pop("wanted")
    assert found.pop("only ends") == "ends"
    alone = found.pop("without numpy")
    for said in [alone] if fallback else [alone, *found.values()]:
        assert "was in use before this process was forked" in said
        assert "'spawn'" in said
        assert "\n" not in said
    if fallback:
        assert set(found.values()) == {wanted}
