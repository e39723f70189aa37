"""The race has limits: slow plans are dropped and named, time ends it, memory decides how many are raced at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tvm_ffi
from onnx import TensorProto, helper

from layoutsel.building.build import CPU
from layoutsel.compile import contest as contests
from layoutsel.compile.build_best import finish
from layoutsel.compile.compiling import compiled
from layoutsel.compile.contenders import plan_of, raced
from layoutsel.compile.contest import CHOSEN, Contest
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.memory import MemoryBudget
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.errors import LayoutselError
from layoutsel.planning.objectives import OBJECTIVES, Answer, Assessed, Objective
from layoutsel.planning.plan import Measured, Plan
from layoutsel.runtime.race import race
from layoutsel.runtime.trial import TooSlow, run_within
from layoutsel.units import base
from tests.registries.packages import toy_unit
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision

SHAPE = (1, 16, 8, 8)
SLOW = Decision(unit="toy")
VALUES = [np.ones(SHAPE, np.float32)]


def network() -> onnx.ModelProto:
    """Two ReLUs, which the toy unit computes, around a pooling."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="first"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["p"], ["y"], name="second"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xyp"]
    graph = helper.make_graph(nodes, "slow", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def toy() -> Iterator[dict[str, float]]:
    """The toy unit, which takes as long for a ReLU as the fixture's value says."""
    takes = {"seconds": 0.0}

    def relu(x: tvm_ffi.Tensor, out: tvm_ffi.Tensor) -> None:
        time.sleep(takes["seconds"])
        toy_unit.toy_relu(x, out)

    tvm_ffi.register_global_func("toy.relu", relu, override=True)
    with base.UNITS.including(toy_unit.UNIT), BACKENDS.including(toy_unit.UNIT.backend):
        yield takes
    tvm_ffi.register_global_func("toy.relu", toy_unit.toy_relu, override=True)


@pytest.fixture
def session(toy, tmp_path) -> Session:
    toy["seconds"] = 0.0
    return Session.open(network(), units=("cpu", "toy"), threads=1, cache=tmp_path / "m.sqlite")


def on(session: Session, unit: str, pins: tuple[str, ...] = ()):
    """A problem whose ReLUs cost nearly nothing on `unit`, and its best plan."""
    problem = priced_problem(Offers.of(session), "roofline", pins)
    nodes = tuple(
        replace(
            node,
            options=tuple(
                replace(option, cost_us=1.0 if option.decision.unit == unit else 9.0)
                for option in node.options
            ),
        )
        for node in problem.nodes
    )
    problem = replace(problem, nodes=nodes)
    return best_plan(session, problem), problem


def test_a_run_is_stopped_between_two_calls(session, toy):
    plan, _ = on(session, "toy", ("nn.relu=toy",))
    model = compiled(session, plan)
    toy["seconds"] = 0.3
    with pytest.raises(TooSlow) as caught:
        run_within(model, VALUES, 0.1)
    assert not caught.value.goes_on
    assert caught.value.at
    toy["seconds"] = 0.0
    assert run_within(model, VALUES, 5.0) < 5.0


def test_a_call_that_does_not_end_is_given_up(session, toy):
    plan, _ = on(session, "toy", ("nn.relu=toy",))
    model = compiled(session, plan)
    toy["seconds"] = 4.0
    started = time.monotonic()
    with pytest.raises(TooSlow, match="it still runs") as caught:
        run_within(model, VALUES, 0.1, grace_s=0.2)
    assert caught.value.goes_on
    assert time.monotonic() - started < 4.0


def test_a_rival_slower_than_predicted_is_dropped_and_named(session, toy, caplog, monkeypatch):
    monkeypatch.setattr(contests, "ALLOWED_S", 0.05)
    plan, problem = on(session, "cpu")
    assert SLOW not in plan.decisions.values()
    toy["seconds"] = 0.2
    memory = MemoryBudget.of(session.graph, 1 << 40)
    contest = Contest(session, problem, VALUES, time.monotonic() + 60, memory)
    contest.enter_chosen(plan, None)
    rival = dict(plan.decisions) | {"first": SLOW}
    with caplog.at_level(logging.WARNING):
        contest.enter({"slow": plan_of(plan, problem, rival, "slow")})
    assert "the contender 'slow' is dropped from the race: a run took longer than 0." in caplog.text
    assert " s at toy.relu" in caplog.text
    assert [contender.name for contender in contest.ranked()] == [CHOSEN]
    assert rival in contest.tried


def test_a_chosen_plan_slower_than_predicted_gives_way(session, toy, caplog, monkeypatch):
    monkeypatch.setattr(contests, "ALLOWED_S", 0.2)
    plan, problem = on(session, "toy")
    assert list(plan.decisions.values()).count(SLOW) == 2
    toy["seconds"] = 0.15
    with caplog.at_level(logging.WARNING):
        model = finish(session, plan, problem)
    assert "the plan is dropped from the race: a run took 0." in caplog.text
    assert "toy" not in model.header["units"]


def bought(problem, decisions) -> Assessed:
    del problem
    return Assessed(value=float(list(decisions.values()).count(SLOW)))


def most_bought(problem, strategy, time_limit_s):
    del strategy, time_limit_s
    decisions = {
        node.id: max((o.decision for o in node.options), key=lambda decision: decision == SLOW)
        for node in problem.nodes
    }
    best = bought(problem, decisions).value
    return Answer.of(problem, decisions, bound=best, solver="all", time_s=0.0)


@pytest.fixture
def by_price() -> Iterator[str]:
    """An objective from outside: as many sub-graphs as possible on the toy unit."""
    objective = Objective(
        name="bought",
        unit="sub-graphs",
        about="on the toy unit",
        assess=bought,
        solvers={"all": most_bought},
        bound=lambda problem, _: float(len(problem.nodes)),
        maximised=True,
    )
    with OBJECTIVES.including(objective):
        yield objective.name


def test_the_race_is_won_by_the_objective_not_by_time(session, toy, by_price, caplog):
    """The toy unit takes far longer than the CPU, and is kept: the objective counts something else."""
    session = replace(session, options=replace(session.options, objective=by_price))
    _, problem = on(session, "cpu")
    assert problem.objective == by_price
    summed = best_plan(session, replace(problem, objective="sum"))
    assert SLOW not in summed.decisions.values()
    toy["seconds"] = 0.01
    with caplog.at_level(logging.WARNING):
        model = finish(session, summed, problem)
    made = Plan.read(dict(model.plan), file="plan")
    assert list(made.decisions.values()).count(SLOW) == 2
    times = {name: one.median_us for name, one in made.measured.items()}
    assert times[made.strategy] > 10 * times[CHOSEN]
    assert made.values[by_price].value == 2


@pytest.mark.nightly
def test_where_all_are_too_slow_the_chosen_one_is_kept(session, toy, monkeypatch):
    monkeypatch.setattr(contests, "ALLOWED_S", 0.05)
    plan, problem = on(session, "toy", ("nn.relu=toy",))
    toy["seconds"] = 0.1
    model = finish(session, plan, problem)
    assert model.checks


def test_a_chosen_plan_that_does_not_end_is_an_error(session, toy, monkeypatch):
    monkeypatch.setattr(contests, "FIRST_RUN_S", 0.0)
    plan, problem = on(session, "toy", ("nn.relu=toy",))
    toy["seconds"] = 0.3
    with pytest.raises(LayoutselError, match=r"the plan is not fit to run: .* Pin"):
        raced(replace(session, options=replace(session.options, time_limit_s=0.1)), plan, problem)


def test_rivals_are_left_out_when_the_time_is_up(session, caplog):
    plan, problem = on(session, "cpu")
    memory = MemoryBudget.of(session.graph, 1 << 40)
    contest = Contest(session, problem, VALUES, time.monotonic() - 1, memory)
    contest.enter_chosen(plan, None)
    rival = dict(plan.decisions) | {"first": SLOW}
    with caplog.at_level(logging.WARNING):
        contest.enter({"late": plan_of(plan, problem, rival, "late")})
        ranked = contest.ranked()
    assert [contender.name for contender in ranked] == [CHOSEN]
    assert ranked[0].plan.own_measurement is not None
    assert "1 plans are not raced (late): the time limit is reached" in caplog.text


@pytest.mark.parametrize("room", ["for all", "for two", "for none"])
def test_memory_decides_how_many_are_raced_at_once(session, room, caplog):
    plan, problem = on(session, "cpu")
    other = plan_of(plan, problem, dict.fromkeys(plan.decisions, CPU) | {"first": SLOW}, "other")
    third = plan_of(plan, problem, dict.fromkeys(plan.decisions, CPU) | {"second": SLOW}, "third")
    heats = []

    class Memory(MemoryBudget):
        def has_room(self, further, known, plans=1):
            if room == "for two":
                return not contest._alive or (len(contest._alive) < 2 and sum(further.values()) < 2)
            return room == "for all"

    class Counted(Contest):
        def _heat(self):
            heats.append(sorted(self._alive))
            super()._heat()

    memory = Memory(limit_bytes=0, weights=dict.fromkeys(plan.decisions, 1))
    contest = Counted(session, problem, VALUES, time.monotonic() + 60, memory)
    contest.enter_chosen(plan, None)
    with caplog.at_level(logging.WARNING):
        contest.enter({"other": other, "third": third})
        ranked = contest.ranked()
    alive = [contender for contender in ranked if contender.built is not None]
    assert alive == ranked[:1]
    if room == "for all":
        assert heats == [["other", CHOSEN, "third"]]
    elif room == "for two":
        assert [len(heat) for heat in heats] == [2, 2]
        assert {one.name for one in ranked} == {CHOSEN, "other", "third"}
    else:
        assert [one.name for one in ranked] == [CHOSEN]
        assert "2 plans are not raced (other, third): too little memory" in caplog.text
    assert ranked[-1].model.inputs == ranked[0].model.inputs


def test_heats_at_different_speeds_are_on_one_scale(session, toy, monkeypatch):
    """The machine is at half its speed in the second heat: the fastest still has the least figure."""
    speeds = iter([1.0, 2.0])
    takes = {CHOSEN: 100.0, "other": 50.0, "third": 49.0}

    def timed(calls, **_options):
        speed = next(speeds, 2.0)
        return {
            name: Measured(median_us=speed * takes[name], spread_us=speed, runs=11)
            for name in calls
        }

    monkeypatch.setattr(contests, "race", timed)
    plan, problem = on(session, "cpu")
    memory = MemoryBudget.of(session.graph, 1 << 40)
    contest = Contest(session, problem, VALUES, time.monotonic() + 60, memory)
    contest.enter_chosen(plan, None)
    contest.enter({"other": plan_of(plan, problem, plan.decisions, "other")})
    contest._heat()
    contest.enter({"third": plan_of(plan, problem, plan.decisions, "third")})
    first, *_ = contest.ranked()
    figures = {name: one.median_us for name, one in first.plan.measured.items()}
    assert first.name == "third"
    assert figures == pytest.approx({name: 2.0 * us for name, us in takes.items()})


def test_a_race_ends_with_its_time():
    times = {"a": 0, "b": 0}

    def call(name):
        times[name] += 1
        time.sleep(0.02)

    calls = {name: (lambda name=name: call(name)) for name in times}
    measured = race(calls, rounds=50, turn_s=0.0, drop_after=1, limit_s=0.1)
    assert all(1 <= one.runs < 10 for one in measured.values())
    assert measured["a"].median_us > 1e4
