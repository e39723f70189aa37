"""Trunks or branches on an OpenCL device beside the host: real runs, with PoCL where there is no GPU."""

from __future__ import annotations

import functools
import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest
from device_models import DEVICE, HOST, SURE, UNSURE, code_of
from exit_models import check, expected, images, network, policy_of

from layoutsel.errors import LayoutselError, NoBatches
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.building import build, load
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_code import ExitCode, code_key
from layoutsel.exits.load_aware_building import build_for_loads, table_for
from layoutsel.exits.measured_devices import with_devices
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.planner import ExitProblem, plan_exits
from tests.opencl.on_opencl import needs_device
from tests.prepared import run_python

pytestmark = needs_device

ARRANGEMENTS = {
    "trunk there": (DEVICE, HOST, HOST),
    "branches there": (HOST, DEVICE, DEVICE),
    "all there": (DEVICE, DEVICE, DEVICE),
    "one branch there": (DEVICE, DEVICE, HOST),
    "an exit off": (DEVICE, None, HOST),
}
"""Workers of the trunk and the branches."""
PATTERNS = (SurePattern(exits=(0, 1), samples=3), SurePattern(exits=(), samples=1))


@functools.cache
def code(name: str) -> ExitCode:
    return code_of(network(name))


def arranged(name: str, workers) -> Arrangement:
    early = len(network(name).names) - 1
    return Arrangement(trunk=workers[0], branches=tuple(workers[1 : 1 + early]))


def started(name: str, workers, policy=None, **options) -> ExitModel:
    arrangement = arranged(name, workers)
    exits = network(name).names
    policy = policy or policy_of(*[SURE] * (len(exits) - 1))
    compiled = code(name).of(arrangement)
    kinds = code(name).found.costs.workers
    return ExitModel(compiled, exits, arrangement, policy, workers=kinds, **options)


@pytest.mark.parametrize(
    ("name", "arrangement"),
    [
        *(("chain", each) for each in ARRANGEMENTS),
        ("residual", "trunk there"),
        ("cascade", "trunk there"),
        ("cascade", "one branch there"),
    ],
)
@pytest.mark.parametrize("answer", ["first", "ordered"])
def test_every_pattern_of_sure_exits_equals_onnx_runtime(name, arrangement, answer):
    workers = ARRANGEMENTS[arrangement]
    exits = network(name).names
    for pattern in itertools.product((SURE, UNSURE), repeat=len(exits) - 1):
        with started(name, workers, policy_of(*pattern), answer=answer) as model:
            assert model.compiled.uses_devices
            on = [e for e, one in enumerate(model.arrangement.branches) if one is not None]
            for x in images(name, 3):
                found = model(x)
                check(found, exits, expected(name, x))
                sure = [exits[e] for e in on if pattern[e] == SURE]
                in_order = answer == "ordered" or not model.arrangement.is_beside
                assert found.exit in ([*sure, exits[-1]][:1] if in_order else [*sure, exits[-1]])
            assert not model.is_off or not on
            whole = model.all(images(name, 1)[0])
            assert [one.exit for one in whole] == [*(exits[e] for e in on), exits[-1]]


def test_tensors_of_a_device_stay_there():
    """The next segment reads the tap in the device's memory; the branch has a copy of the host."""
    beside, alone = (
        code("chain").of(arranged("chain", ARRANGEMENTS[name]))
        for name in ("trunk there", "all there")
    )
    stages = {one.name: one for one in beside.stages}
    made = {one.name for one in stages["trunk0"].outputs}
    (there,) = (one.name for one in stages["trunk1"].inputs)
    (here,) = (one.name for one in stages["branch0"].inputs)
    assert {there, here} == made
    assert there == f"{here}@opencl"
    for stage in alone.stages:
        for one in (*stage.inputs, *stage.outputs):
            assert one.name.startswith(("input.", "output.")) or one.name.endswith("@opencl")


def test_equal_code_is_compiled_once():
    found = code("chain").found
    keys = {
        code_key(found, Arrangement(trunk=DEVICE, branches=branches))
        for branches in ((None, None), (DEVICE, None), (DEVICE, DEVICE))
    }
    assert len(keys) == 1
    host = Arrangement(trunk=HOST, branches=(None, HOST))
    assert code("chain").of(host) is code("chain").on_host(1)


def planned(code: ExitCode, *pins: str):
    """Plan, and the network with its policy."""
    problem = ExitProblem(
        exits=code.network.names,
        costs=code.found.costs,
        policy=policy_of(SURE, SURE),
        patterns=PATTERNS,
    )
    return plan_exits(
        problem,
        model_name=code.network.name,
        model_hash=code.network.spec.model_hash,
        pins=pins,
        time_limit_s=5,
    )


STAGES = ("trunk", "exit1", "exit2")
THERE = (f"trunk={DEVICE}", f"exit1={HOST}", f"exit2={HOST}")
LOADING = """
import logging, sys
import numpy as np
logging.basicConfig(level=logging.WARNING, format="%(message)s")
from layoutsel.exits.building import load
with load(sys.argv[1]) as model:
    x = np.load(sys.argv[2])
    for _ in range(2):
        answer = model(x)
    print(model.arrangement.trunk, answer.exit, answer.label, model.compiled.uses_devices)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Artifact with the trunk on the device, and the answer of its final exit."""
    folder = tmp_path_factory.mktemp("device")
    x = images("chain", 1)[0]
    np.save(folder / "x.npy", x)
    found = code("chain").found
    plan = planned(code("chain"), *THERE)
    with build(network("chain"), found, plan, race_s=0) as model:
        assert model.arrangement.trunk == DEVICE
        return model.save(folder / "net.so")


class TestArtifacts:
    def test_saved_and_loaded(self, saved):
        with load(saved) as model:
            assert model.arrangement == Arrangement(trunk=DEVICE, branches=(HOST, HOST))
            for x in images("chain", 3):
                for answer in model.all(x):
                    check(answer, model.exits, expected("chain", x))

    def test_without_the_device_the_hosts_trunk_answers(self, saved):
        """One warning says so; no driver is found in that process."""
        environment = {"OCL_ICD_VENDORS": "/nonexistent", "OPENCL_VENDOR_PATH": "/nonexistent"}
        done = run_python(
            *("-c", LOADING, saved, saved.parent / "x.npy"), limit_s=120, environment=environment
        )
        assert done.returncode == 0, done.stderr
        label = expected("chain", np.load(saved.parent / "x.npy"))[-1][2]
        assert done.stdout.split() == [HOST, "final", str(label), "False"]
        lines = [line for line in done.stderr.splitlines() if line]
        assert len(lines) == 1
        assert "opencl" in lines[0]
        assert "fallback model of host units" in lines[0]

    @pytest.mark.parametrize("workers", [(DEVICE, HOST, HOST), (DEVICE, DEVICE, DEVICE)])
    def test_a_device_that_is_lost_in_a_request(self, slow, caplog, workers):
        """The host's trunk answers this request and all later ones, with one warning."""
        is_lost = False

        def fail(stage: str) -> None:
            if is_lost and stage == "trunk1" and model.compiled.uses_devices and not switched:
                switched.append(stage)
                raise RuntimeError("opencl:0: work on the device failed: CL_DEVICE_NOT_AVAILABLE")

        switched: list[str] = []
        slow(fail)
        found = code("chain").found
        pins = [f"{name}={one}" for name, one in zip(STAGES, workers, strict=True)]
        plan = replace(planned(code("chain"), *pins), policy=policy_of(UNSURE, UNSURE))
        with build(network("chain"), found, plan, race_s=0, verify=False) as model:
            is_lost = True
            with caplog.at_level(logging.WARNING):
                for x in images("chain", 3):
                    answer = model(x)
                    assert answer.exit == "final"
                    check(answer, model.exits, expected("chain", x))
            assert model.is_off
        assert switched
        assert caplog.text.count("exits are off, and the trunk alone answers") == 1

    def test_the_race_may_keep_the_hosts_trunk(self, monkeypatch):
        """The trunk alone on the host is always among the rivals."""
        seen = {}

        def judged(models, plan, limit_s):
            seen.update(models)
            from layoutsel.exits.racing import TimedPlan

            is_alone = {
                name: not one.compiled.uses_devices and one.is_off for name, one in models.items()
            }
            return {name: TimedPlan(1.0 if is_alone[name] else 2.0, 3.0) for name in models}

        monkeypatch.setattr("layoutsel.exits.building.race", judged)
        plan = planned(code("chain"), *THERE)
        with build(network("chain"), code("chain").found, plan, verify=False) as model:
            assert model.arrangement == Arrangement(trunk=HOST, branches=(None, None))
            assert not model.compiled.uses_devices
            check(
                model(images("chain", 1)[0]), model.exits, expected("chain", images("chain", 1)[0])
            )


def test_measured_costs():
    found = code("chain").found
    costs = with_devices(replace(found.costs, slowdown={}, handover_us={}), code("chain"))
    pairs = {f"{DEVICE}>{HOST}", f"{HOST}>{DEVICE}"}
    assert costs.handover_us.keys() == costs.calls_us.keys() == pairs
    assert costs.copy_us.keys() == {f"{DEVICE}>{HOST}"}
    assert {key.replace("|", ">") for key in costs.slowdown} == pairs
    assert all(1 <= factor < 1000 for factor in costs.slowdown.values())
    assert all(0 < us < 1e5 for us in costs.copy_us[f"{DEVICE}>{HOST}"])
    assert 0 < sum(map(sum, costs.trunk_us[DEVICE])) < 1e6
    assert costs.trunk_us[DEVICE] != found.costs.trunk_us[DEVICE]
    assert costs.trunk_us[HOST] == found.costs.trunk_us[HOST]


def test_declined():
    """Tables by load and batches are of the host; a device's worker needs code for the device."""
    plan = planned(code("chain"), *THERE)
    found = code("chain").found
    with pytest.raises(LayoutselError, match=r"got a plan with stages on opencl/0"):
        build_for_loads(network("chain"), found, plan, table_for(plan), race_s=0)
    one = planned(code("chain"), *(f"{stage}={DEVICE}" for stage in STAGES))
    with pytest.raises(
        NoBatches, match=r"batches run on the host: got a plan with stages on opencl"
    ):
        build(network("chain"), found, one, race_s=0, batch=2, verify=False)
    with pytest.raises(LayoutselError, match="compiled for the devices of its workers"):
        ExitModel(
            code("chain").on_host(1),
            network("chain").names,
            arranged("chain", ARRANGEMENTS["trunk there"]),
            policy_of(SURE, SURE),
            workers=found.costs.workers,
        )
