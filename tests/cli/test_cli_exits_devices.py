"""``layoutsel exits plan``, ``compile``, ``run`` and ``bench`` with the trunk on an OpenCL device."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import layoutsel, refused, succeed
from trained_exits import NAMES, network_path, samples_path

from layoutsel.exits import ExitMatrix, ExitPlan, Policy, observe, read
from tests.opencl.on_opencl import needs_device

NETWORK, SAMPLES = network_path(NAMES[0]), samples_path(NAMES[0])
QUICK = ("--cost", "roofline", "--units", "cpu,opencl", "--no-measure")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """Policy by which half of the samples leave at the first exit."""
    folder = tmp_path_factory.mktemp("exits")
    observe(read(NETWORK), SAMPLES).save(folder / "seen.npz")
    scores = ExitMatrix.load(folder / "seen.npz").scores
    thresholds = (*(float(one) for one in np.median(scores[:, :-1], axis=0)), None)
    Policy(score="max_prob", thresholds=thresholds).save(folder / "p.json")
    return folder / "p.json"


@needs_device
def test_a_trunk_on_a_device_from_plan_to_answers(policy, tmp_path):
    file, artifact = tmp_path / "exits.json", tmp_path / "net.so"
    pins = [f"--pin={stage}" for stage in ("trunk=opencl-0", "exit1=cpu-1", "exit2=cpu-1")]
    given = (NETWORK, "--policy", policy, "--seen", policy.parent / "seen.npz", "-o", file)
    printed = succeed(
        "exits", "plan", *given, *pins, "--cancel-within", "1us", *QUICK, run=layoutsel
    )
    assert "opencl-0 is the device opencl/0, with at most one sub-graph in its queue" in printed
    plan = ExitPlan.load(file)
    assert plan.arrangement.trunk == "opencl-0"
    assert set(plan.plans) == {*(str(kind.threads) for kind in plan.costs.workers), "opencl-0"}
    compiled = ("compile", NETWORK, file, "-o", artifact, "--race", "0")
    assert "results verified against ONNX Runtime" in succeed("exits", *compiled, run=layoutsel)
    ran = json.loads(succeed("exits", "run", artifact, SAMPLES, "--first", 20, "--json"))
    assert ran["answers"] == 20
    compared = json.loads(succeed("exits", "bench", artifact, SAMPLES, "--first", 5, "--json"))
    assert [row["name"] for row in compared["arrangements"]] == ["as compiled", "trunk alone"]
    assert compared["arrangements"][1]["shares"] == {"final": 1.0}


def test_the_time_to_cancel_within_is_checked(policy):
    given = (NETWORK, "--policy", policy, "--cancel-within", "soon")
    assert "--cancel-within soon: expected a time above 0" in refused("exits", "plan", *given)
