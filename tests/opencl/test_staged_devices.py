"""Stages on different devices: each on a worker of its own, tensors crossing by way of the host."""

from __future__ import annotations

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
