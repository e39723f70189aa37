"""The simulation of one request against a replay that is written differently."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from exit_problems import arrangements, exit_costs, pattern_sets, workers
from exit_replay import Replay
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.latencies import OBJECTIVES, LatencyModel, quantile
from layoutsel.exits.policy import Policy
from layoutsel.exits.simulate import ExitSimulator


def subsets(count):
    return [set(chosen) for size in range(count + 1) for chosen in combinations(range(count), size)]


@pytest.mark.parametrize("answer", ANSWERS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_simulation_is_the_replay(answer, data):
    costs = data.draw(exit_costs())
    arrangement = data.draw(arrangements(costs))
    last = len(costs.needs)
    silent = data.draw(st.frozensets(st.integers(0, last - 1)))
    simulator = ExitSimulator(costs)
    known_us = simulator.known_us(arrangement)
    known_us[list(silent)] = np.nan
    patterns = subsets(last)
    sure = np.array(
        [[number in one or number == last for number in range(last + 1)] for one in patterns]
    )
    exits, times_us = ANSWERS[answer](known_us, sure)
    for one, exit_, time_us in zip(patterns, exits, times_us, strict=True):
        replay = Replay(costs, arrangement, one, ordered=answer == "ordered", silent=silent).run()
        assert (exit_, time_us) == replay.answer
        found = simulator.request(arrangement, int(exit_), float(time_us))
        assert found.idle_us == pytest.approx(replay.idle)
        assert found.busy_us == pytest.approx(float(replay.busy))
        assert found.waste_us == pytest.approx(float(replay.waste))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_latencies_are_those_of_samples_one_by_one(data):
    costs = replace(data.draw(exit_costs()), waiting={}, late={}, mean_over_median=1.0)
    exits = len(costs.needs) + 1
    arrangement = data.draw(arrangements(costs))
    patterns = data.draw(pattern_sets(exits))
    policy = Policy(score="max_prob", thresholds=(*[0.5] * (exits - 1), None))
    model = LatencyModel(costs, policy, patterns, answer="first")
    found = model.latencies(arrangement)
    replays = [Replay(costs, arrangement, set(one.exits)).run() for one in patterns]
    runs = [run for run, one in zip(replays, patterns, strict=True) for _ in range(one.samples)]
    times_us = np.sort([float(run.answer[1]) for run in runs])
    assert found.mean_us == pytest.approx(times_us.mean())
    for share, value in ((0.5, found.p50_us), (0.95, found.p95_us), (0.99, found.p99_us)):
        assert np.mean(times_us <= value) >= share > np.mean(times_us < value)
    assert found.busy_us == pytest.approx(np.mean([float(run.busy) for run in runs]))
    assert found.waste_us == pytest.approx(np.mean([float(run.waste) for run in runs]))
    assert found.worst_us == float(Replay(costs, arrangement, set()).run().answer[1])
    for one, run in zip(patterns, replays, strict=True):
        sure = [number in one.exits for number in range(exits - 1)]
        assert model.request_us(arrangement, sure) == float(run.answer[1])
    for objective in OBJECTIVES:
        assert model.value_us(arrangement, objective) == getattr(found, f"{objective}_us")


def test_quantile_of_equal_shares_is_exact():
    times_us = np.arange(1.0, 101.0)
    assert quantile(times_us, np.ones(100, int), 0.95) == 95
    assert quantile(times_us, np.ones(100, int), 0.99) == 99
    assert quantile(np.array([7.0, 3.0]), np.array([1, 99]), 0.99) == 3


def test_cancel_at_the_end_of_the_current_subgraph():
    costs = ExitCosts(
        workers=workers(2),
        cores=2,
        trunk_us={"w0": ((10.0,), (20.0, 20.0, 20.0))},
        branch_us={"w1": ((30.0,),)},
        needs=((),),
        handover_us={"w0>w1": (2.0,)},
        slowdown={"w0|w1": 2.0},
    )
    beside = Arrangement(trunk="w0", branches=("w1",))
    simulator = ExitSimulator(costs)
    # The trunk is twice as slow from 12 to 42 µs: 2 + 15 of its 60 µs are done at the answer.
    assert simulator.known_us(beside).tolist() == [42.0, 85.0]
    found = simulator.request(beside, 0, 42.0)
    assert found.idle_us == {"w0": 45.0, "w1": 42.0}
    assert (found.busy_us, found.waste_us) == (75.0, 3.0)
    assert [(run.name, run.complete) for run in found.runs] == [
        ("trunk0", True),
        ("trunk1", False),
        ("branch0", True),
    ]


def test_stages_that_end_after_the_answer_start_no_others():
    costs = ExitCosts(
        workers=workers(3),
        cores=3,
        trunk_us={"w0": ((1.0,), (8.0,), (9.0,))},
        branch_us={"w1": ((6.0,), (1.0,)), "w2": ((1.0,), (30.0,))},
        needs=((), ()),
    )
    where = Arrangement(trunk="w0", branches=("w1", "w2"))
    found = ExitSimulator(costs).request(where, 0, 7.0)
    # The second segment ends after the answer, at 9 µs, and neither exit 1 nor segment 2 follows.
    assert {run.name for run in found.runs} == {"trunk0", "trunk1", "branch0"}
    assert found.idle_us == {"w0": 9.0, "w1": 7.0}
    costs = replace(costs, trunk_us={"w0": ((1.0,), (1.0,), (2.0, 9.0))})
    found = ExitSimulator(costs).request(where, 0, 7.0)
    # The last segment and exit 1 go on, one after the other, to the ends of their pieces.
    assert found.idle_us == {"w0": 13.0, "w1": 7.0, "w2": 32.0}


def test_a_call_is_paid_by_arrangements_on_several_workers():
    costs = ExitCosts(
        workers=workers(2),
        cores=2,
        trunk_us={"w0": ((10.0,), (20.0,)), "w1": ((10.0,), (20.0,))},
        branch_us={"w0": ((30.0,),), "w1": ((30.0,),)},
        needs=((),),
        handover_us={"w0>w1": (2.0,)},
        call_us=7.0,
    )
    times_us = {
        branch: ExitSimulator(costs).known_us(Arrangement(trunk="w0", branches=(branch,)))
        for branch in (None, "w0", "w1")
    }
    assert times_us["w0"].tolist() == [40.0, 60.0]
    assert times_us[None][-1] == 30.0
    assert times_us["w1"].tolist() == [7 + 10 + 2 + 30, 7 + 30]
