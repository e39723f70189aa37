"""Limits of the work in a device's queue, and what a stopped queue costs; no device is needed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layoutsel.exits.arrangement import Arrangement, ExitCosts, WorkerKind, host_costs
from layoutsel.exits.arrangement_checks import cost_faults
from layoutsel.exits.device_workers import divided_units, limited
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.planner import ExitProblem, plan_exits
from layoutsel.exits.policy import Policy
from layoutsel.exits.simulate import ExitSimulator, stage_pieces

DEVICE = WorkerKind(
    name="opencl-0", unit="opencl", threads=1, cores=0, device="opencl/0", in_flight=1
)
HOST = WorkerKind(name="cpu-1", unit="cpu", threads=1, cores=1)
TIMES = st.lists(st.lists(st.floats(0.1, 100), max_size=7), min_size=1, max_size=4)


@given(TIMES, st.floats(0.05, 500))
def test_the_limit_is_the_largest_that_ends_within_the_time(stages, within_us):
    found = limited(DEVICE, stages, within_us).in_flight

    def longest_us(count):
        return max(
            (
                sum(stage[start : start + count])
                for stage in stages
                for start in range(max(1, len(stage) - count + 1))
            ),
            default=0.0,
        )

    most = max(1, *map(len, stages))
    assert 1 <= found <= most
    if found > 1:
        assert longest_us(found) <= within_us * (1 + 1e-9)
    if found < most:
        assert longest_us(found + 1) > within_us * (1 - 1e-9)


def test_workers_of_the_host_have_no_limit():
    assert limited(HOST, [[1.0]], 5.0) is HOST


@given(TIMES, st.integers(1, 9))
def test_a_queue_delays_stops_alone(stages, queued):
    """Pieces are sums of as many sub-graphs as the queue holds, and the stage takes the same time."""
    alone, together = (stage_pieces(stages, 0.5, count) for count in (1, queued))
    for stage, single, pieces in zip(stages, alone, together, strict=True):
        assert sum(pieces) == pytest.approx(sum(single))
        assert len(pieces) == (1 + -(-len(stage) // queued) if stage else 0)
        points = np.cumsum(single)
        assert all(np.isclose(points, point).any() for point in np.cumsum(pieces))


def costs(**changes) -> ExitCosts:
    """A trunk of three segments that a device runs four times as fast."""
    trunk, branches = ((40.0, 40.0),) * 3, ((30.0,), (30.0,))
    fast = {"trunk": tuple((10.0, 10.0) for _ in trunk), "branches": ((20.0,), (20.0,))}
    return replace(
        ExitCosts(
            workers=(HOST, replace(DEVICE, in_flight=2)),
            cores=1,
            trunk_us={"cpu-1": trunk, "opencl-0": fast["trunk"]},
            branch_us={"cpu-1": branches, "opencl-0": fast["branches"]},
            needs=((), ()),
            handover_us={"opencl-0>cpu-1": (5.0, 5.0), "cpu-1>opencl-0": (9.0, 9.0)},
            copy_us={"opencl-0>cpu-1": (3.0, 4.0)},
            calls_us={"opencl-0>cpu-1": 7.0, "cpu-1>opencl-0": 8.0},
            slowdown={"opencl-0|cpu-1": 1.0},
        ),
        **changes,
    )


def test_copies_hold_up_the_trunk_and_its_branch():
    beside = Arrangement(trunk="opencl-0", branches=("cpu-1", "cpu-1"))
    known = ExitSimulator(costs()).known_us(beside)
    first = 7 + 20 + 3
    second = first + 20 + 4
    assert known == pytest.approx(
        [first + 5 + 30, max(second + 5, first + 5 + 30) + 30, second + 20]
    )
    alone = Arrangement(trunk="opencl-0", branches=(None, None))
    assert ExitSimulator(costs()).known_us(alone)[-1] == pytest.approx(60)


def test_an_answer_waits_for_the_queue():
    beside = Arrangement(trunk="opencl-0", branches=("cpu-1", None))
    found = ExitSimulator(costs()).request(beside, 0, 65.0)
    (stopped,) = (run for run in found.runs if run.name == "trunk2")
    assert (stopped.start_us, stopped.complete) == (50.0, True)  # both of its sub-graphs are queued
    branches = {**costs().branch_us, "cpu-1": ((20.0,), (30.0,))}
    short = costs(workers=(HOST, replace(DEVICE, in_flight=1)), branch_us=branches)
    found = ExitSimulator(short).request(beside, 0, 55.0)
    (stopped,) = (run for run in found.runs if run.name == "trunk2")
    assert (stopped.end_us, stopped.complete) == (60.0, False)


def problem(**changes) -> ExitProblem:
    return ExitProblem(
        exits=("exit1", "exit2", "final"),
        costs=costs(**changes),
        policy=Policy(score="max_prob", thresholds=(0.5, 0.5, None)),
        patterns=(SurePattern(exits=(0, 1), samples=3), SurePattern(exits=(), samples=1)),
    )


def test_a_plan_with_a_device_is_the_best_of_all_and_is_read_again(tmp_path):
    made = plan_exits(problem())
    simulator = ExitSimulator(costs())
    every = [
        Arrangement(trunk=trunk, branches=branches)
        for trunk in ("cpu-1", "opencl-0")
        for branches in itertools.product((None, "cpu-1", "opencl-0"), repeat=2)
    ]

    def mean_us(one):
        known = simulator.known_us(one)
        early = [us for us in known[:2] if not np.isnan(us)]
        return (3 * min([*early, known[2]]) + known[2]) / 4

    assert made.value_us == pytest.approx(min(map(mean_us, every)))
    assert made.gap <= 1e-9
    assert made.arrangement.trunk == "opencl-0"
    assert any(one.name == "exits off, trunk on cpu-1" for one in made.baselines)
    made.save(tmp_path / "plan.json")
    assert ExitPlan.load(tmp_path / "plan.json") == made


@pytest.mark.parametrize("pin", ["trunk=opencl-0", "trunk=opencl"])
def test_pins_name_a_device_or_its_unit(pin):
    assert plan_exits(problem(), pins=[pin, "exit1=cpu-1"]).arrangement.trunk == "opencl-0"
    assert plan_exits(problem(), pins=["trunk=cpu-1"]).arrangement.trunk == "cpu-1"


def test_inconsistent_costs_of_devices():
    faults = {path: expected for path, _, expected in cost_faults(costs())}
    assert not faults
    wrong = costs(
        workers=(HOST, replace(DEVICE, in_flight=0)),
        copy_us={"opencl-0>cpu-1": (3.0,)},
        calls_us={"opencl-0>gpu": -1.0},
    )
    paths = [path for path, _, _ in cost_faults(wrong)]
    assert paths.count("$.calls_us.opencl-0>gpu") == 2
    assert {"$.workers[1].in_flight", "$.copy_us.opencl-0>cpu-1"} <= {*paths}


def test_costs_of_the_host_alone():
    found = host_costs(costs())
    assert not list(cost_faults(found))
    assert [kind.name for kind in found.workers] == ["cpu-1"]
    assert not (found.handover_us)
    assert not (found.copy_us)
    assert not (found.calls_us)
    assert not (found.slowdown)


def test_units_of_host_and_devices():
    assert divided_units(None) == (None, ())
    assert divided_units(["cpu", "opencl"]) == (("cpu",), ("opencl",))
    assert divided_units(["opencl"]) == (None, ("opencl",))
