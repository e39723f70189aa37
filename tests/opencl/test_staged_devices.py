"""Stages on different devices: each on a worker of its own, tensors crossing by way of the host."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from on_opencl import needs_device

import layoutsel
from tests.runtime.branching import BRANCHES, expected, image, network, planned
from tvm_passes.decision import Decision

pytestmark = needs_device

LIMIT_S = 60
HOST, DEVICE = Decision(unit="cpu", layout="NHWC"), Decision(unit="opencl")


@pytest.mark.parametrize("there", [("a",), ("trunk", "a"), BRANCHES])
def test_stages_on_a_device(there):
    plan = planned(network(1), ("cpu",))
    held = {id_ for stage in plan.stages if stage.name in there for id_ in stage.subgraphs}
    subgraphs = (replace(s, decision=DEVICE if s.id in held else HOST) for s in plan.subgraphs)
    plan = replace(plan, subgraphs=tuple(subgraphs))
    model = layoutsel.compile_plan(network(1), plan, units=["cpu", "opencl"])
    x = image()
    want = expected(network(1), x)
    with model.worker() as first, model.worker() as second:
        taps = first.run("trunk", {"input.0": x}).result(LIMIT_S)
        futures = [
            worker.run(name, taps) for name, worker in zip(BRANCHES, (first, second), strict=True)
        ]
        results = {k: v for future in futures for k, v in future.result(LIMIT_S).items()}
    for found in (model(x), [results["output.0"], results["output.1"]]):
        for got, one in zip(found, want, strict=True):
            np.testing.assert_allclose(got, one, rtol=1e-4, atol=1e-5)


FAILING = """
import sys
import numpy as np
import layoutsel
from layoutsel.device.cancellation import CancelToken
model = layoutsel.load(sys.argv[1])
x = {"input.0": np.ones((1, 8, 10, 10), "float32")}
with model.worker() as worker:
    for token in (None, CancelToken()):
        taps = worker.run("trunk", x).result(60)
        error = worker.run("a", taps, token).exception(60)
        print(type(error).__name__, error)
    print(worker.run("b", taps).exception(60))
"""


def test_a_failing_device_is_named_with_the_sub_graph(tmp_path):
    """Its driver builds no kernel there; stages of the host go on."""
    plan = planned(network(1), ("cpu",))
    (held,) = (stage.subgraphs for stage in plan.stages if stage.name == "a")
    subgraphs = (replace(s, decision=DEVICE if s.id in held else HOST) for s in plan.subgraphs)
    plan = replace(plan, subgraphs=tuple(subgraphs))
    path = layoutsel.compile_plan(network(1), plan, units=["cpu", "opencl"]).save(
        tmp_path / "model.so"
    )
    broken = {"POCL_EXTRA_BUILD_FLAGS": "-bogus", "POCL_CACHE_DIR": str(tmp_path / "cache")}
    ran = subprocess.run(
        [sys.executable, "-c", FAILING, path],
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
        env={**os.environ, **broken},
    )
    first, second, third = ran.stdout.splitlines()
    said = f"DeviceError sub-graph {held[0]} (nn.conv2d"
    assert first.startswith(said)
    assert second.startswith(said)
    assert "the driver does not build its kernel" in first
    assert third == "None"
