"""Costs, building, racing, saving and loading of multi-exit networks."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from exit_models import expected, images, network, policy_of

import layoutsel
from layoutsel import documents
from layoutsel.device.artifact_header import read_header
from layoutsel.device.artifact_parts import verify
from layoutsel.device.tensors import nbytes_of
from layoutsel.device.threads import available_cores
from layoutsel.errors import LayoutselError, NoBatches
from layoutsel.exits import building, exit_code
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.batch_times import BatchTimes
from layoutsel.exits.building import (
    build,
    load,
    model_of,
    profiled,
)
from layoutsel.exits.costs import host_workers, priced
from layoutsel.exits.exit_code import compiled_for
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.measured_costs import measured
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.planner import ExitProblem, plan_exits
from layoutsel.exits.racing import TimedPlan, race, timed_in_turns
from layoutsel.exits.server import ExitServer
from layoutsel.planning.check_fits import PlanMismatch

NAME = "cascade"
OFF = Arrangement(trunk="cpu-1", branches=(None, None))
PATTERNS = (SurePattern(exits=(0, 1), samples=3), SurePattern(exits=(), samples=1))


@pytest.fixture(scope="module")
def found():
    return priced(network(NAME), units=["cpu"], cost="roofline")


@pytest.fixture(scope="module")
def plan(found):
    problem = ExitProblem(
        exits=network(NAME).names,
        costs=found.costs,
        policy=policy_of(0.0, 0.0),
        patterns=PATTERNS,
    )
    return plan_exits(
        problem, model_name=NAME, model_hash=network(NAME).spec.model_hash, time_limit_s=5
    )


class TestCosts:
    def test_workers_of_hosts(self):
        names = {cores: [kind.name for kind in host_workers(cores)] for cores in (1, 2, 4)}
        assert names == {
            1: ["cpu-1"],
            2: ["cpu-2", "cpu-1", "cpu-1b"],
            4: ["cpu-4", "cpu-3", "cpu-1", "cpu-1b"],
        }
        assert all(kind.cores == kind.threads for kind in host_workers(4))

    def test_times_are_those_of_the_plans(self, found):
        for kind in found.costs.workers:
            stages = (*found.costs.trunk_us[kind.name], *found.costs.branch_us[kind.name])
            total_us = sum(map(sum, stages))
            assert total_us == pytest.approx(found.plans[kind.threads].cost_us)
        for parts, times in (
            (found.division.trunk, found.costs.trunk_us),
            (found.division.branches, found.costs.branch_us),
        ):
            for us in times.values():
                assert list(map(len, us)) == list(map(len, parts))

    @pytest.mark.skipif(len(available_cores()) == 1, reason="needs two cores")
    def test_measured(self, found):
        compiled = compiled_for(network(NAME), found, 1)
        costs = measured(found.costs, {1: compiled})
        pairs = set(costs.slowdown)
        assert pairs == {"cpu-1|cpu-1b", "cpu-1b|cpu-1"}
        assert all(1 <= factor < 100 for factor in costs.slowdown.values())
        assert {pair.replace("|", ">") for pair in pairs} == set(costs.handover_us)
        for times in costs.handover_us.values():
            assert len(times) == len(costs.needs)
            assert all(0 <= us < 1e5 for us in times)
        assert 0 <= costs.call_us < 1e5
        assert 0 <= costs.request_us < 1e4
        assert not costs.start_us
        # Workers with equal threads have equal times, which keep the proportions within a stage.
        assert costs.trunk_us["cpu-1"] == costs.trunk_us["cpu-1b"]
        stages = zip(costs.trunk_us["cpu-1"], found.costs.trunk_us["cpu-1"], strict=True)
        for us, before in stages:
            flat, proportions = np.array(us), np.array(before)
            np.testing.assert_allclose(flat * proportions.sum(), proportions * flat.sum())
        assert 0.5 < sum(map(sum, costs.trunk_us["cpu-1"])) < 1e5
        # Another number of threads was not measured.
        most = found.costs.workers[0].name
        assert costs.trunk_us[most] == found.costs.trunk_us[most]


@pytest.fixture(scope="module")
def built(found, plan):
    with build(network(NAME), found, plan, race_s=1) as model:
        yield model


def test_a_profile_is_measured_on_every_worker():
    """Each number of threads has plans of its own, and the costs are measured, not predicted."""
    found = profiled(network("on_input"), units=["cpu"], cost="roofline")
    predicted = priced(network("on_input"), units=["cpu"], cost="roofline").costs
    for kind in found.costs.workers:
        assert found.plans[kind.threads].threads == kind.threads
        assert found.costs.trunk_us[kind.name] != predicted.trunk_us[kind.name]


class TestBuilding:
    def test_answers(self, built):
        for x in images(NAME, 3):
            want = dict(zip(built.exits, expected(NAME, x), strict=True))
            for answer in built.all(x):
                values, _, label = want[answer.exit]
                np.testing.assert_allclose(answer.scores, values, rtol=1e-4, atol=1e-5)
                assert answer.label == label

    def test_loaded_without_planning(self, built, plan, tmp_path, monkeypatch):
        file = built.save(tmp_path / "net.so")
        monkeypatch.setattr(layoutsel, "plan", None)
        monkeypatch.setattr(layoutsel, "compile_plan", None)
        with load(file) as model:
            assert model.exits == plan.exits
            assert model.arrangement == built.arrangement
            for x in images(NAME, 3):
                for one, other in zip(model.all(x), built.all(x), strict=True):
                    np.testing.assert_array_equal(one.scores, other.scores)

    def test_the_fastest_of_a_race_is_kept(self, found, plan, monkeypatch, caplog):
        """Whatever the race says; each of the arrangements can be the one."""
        seen = {}

        def judged(models, plan, limit_s):
            seen.update(models)
            return {name: TimedPlan(1.0 if name == wanted else 2.0, 3.0) for name in models}

        made = functools.cache(
            lambda threads: compiled_for(network(NAME), found, threads, verify=False)
        )
        monkeypatch.setattr(building, "race", judged)
        monkeypatch.setattr(
            exit_code, "compiled_for", lambda _network, _found, threads: made(threads)
        )
        wanted = "planned"
        with build(network(NAME), found, plan) as model:
            assert model.arrangement == plan.arrangement
        assert len(seen) >= 2
        wanted = next(name for name in seen if name != "planned")
        caplog.clear()
        with build(network(NAME), found, plan) as model:
            assert model is seen[wanted]
            assert model.arrangement != plan.arrangement
            saved = model.compiled.header["exits"]["arrangement"]["branches"]
            assert tuple(saved) == model.arrangement.branches
            raced = model.compiled.header["exits"]["race"]
            assert raced["kept"] == wanted
            assert raced["p95_us"] == dict.fromkeys(seen, 3.0)
        assert f"{wanted} is faster than the planned arrangement" in caplog.text

    def test_a_race_takes_the_patterns_that_were_observed(self, found, plan):
        arrangement = Arrangement(trunk="cpu-1", branches=("cpu-1", "cpu-1"))
        compiled = compiled_for(network(NAME), found, 1, verify=False)
        inputs = images(NAME, 1)
        with model_of(compiled, replace(plan, arrangement=arrangement)) as model:
            for sure, exit_ in (((), "final"), ((1,), "exit2"), ((0, 1), "exit1")):
                assert model.forced(sure, inputs).exit == exit_
            times = race({"one": model, "two": model}, plan, 0.5)
        assert set(times) == {"one", "two"}
        assert all(one.us > 0 for one in times.values())

    def test_all_patterns_of_a_race_count_as_often_as_they_were_observed(self, plan):
        """Sixteen patterns and their times; the last one counts as that without a sure exit."""
        early = [tuple(e for e in range(4) if code >> e & 1) for code in range(1, 16)]
        many = tuple(SurePattern(exits=one, samples=40 - n) for n, one in enumerate(early))
        other = SurePattern(exits=(), samples=5)
        wide = replace(plan, exits=tuple("abcde"), patterns=(*many, other), objective="mean")
        calls = itertools.count()

        def run(sure):
            round_, place = divmod(next(calls), 17)
            slow = round_ == 0 or place == 0  # the first round, and the first request of each
            return SimpleNamespace(us=100.0 - 10 * len(sure) + 1000.0 * slow)

        found = timed_in_turns({"one": run}, wide, 30)["one"]
        samples = [one.samples for one in (*many, other)]
        mean_us = np.average(
            [100.0 - 10 * len(one.exits) for one in (*many, other)], weights=samples
        )
        assert found.us == pytest.approx(mean_us)
        assert found.p95_us == pytest.approx(mean_us)
        assert next(calls) == 41 * 17
        calls = itertools.count(17)
        worst = timed_in_turns({"one": run}, replace(wide, objective="worst"), 30)["one"]
        assert worst.us == 100

    def test_a_plan_of_another_network(self, found, plan):
        with pytest.raises(PlanMismatch, match="of another model"):
            build(network("chain"), found, plan)

    def test_an_artifact_without_exits(self, found, tmp_path):
        compiled = compiled_for(network(NAME), found, 1)
        with pytest.raises(LayoutselError, match="artifact of a network without exits"):
            load(compiled.save(tmp_path / "plain.so"))


class TestBatches:
    @pytest.fixture
    def sequence(self, found):
        """Plan of all exits in sequence."""
        problem = ExitProblem(
            exits=network(NAME).names,
            costs=found.costs,
            policy=policy_of(0.0, 0.0),
            patterns=PATTERNS,
        )
        pins = [f"{name}=cpu-1" for name in ("trunk", *network(NAME).names[:-1])]
        hash_ = network(NAME).spec.model_hash
        return plan_exits(problem, model_name=NAME, model_hash=hash_, pins=pins, time_limit_s=5)

    def test_saved_with_shared_weights(self, found, sequence, tmp_path, monkeypatch):
        monkeypatch.setattr(BatchTimes, "largest", lambda self: self.sizes[-1])
        inputs = images(NAME, 4)
        with build(network(NAME), found, sequence, race_s=0, batch=4, verify=False) as model:
            file = model.save(tmp_path / "net.so")
            wanted = [model(x) for x in inputs]
        header = read_header(file)
        assert set(header["batches"]) == {"2", "4"}
        # Equal weights are at one place of the file, and so are those in memory. Batches of two and of
        # four may have different algorithms.
        weights = [header["weights"], *(each["weights"] for each in header["batches"].values())]
        every = [one for some in weights for one in some]
        offsets = {one["offset"] for one in every}
        distinct = {one["sha256"]: nbytes_of(one["shape"], one["dtype"]) for one in every}
        assert len(offsets) == len(distinct) < len(every)
        assert verify(file, header).weight_bytes == sum(distinct.values())
        with load(file) as model, ExitServer(model) as server:
            models = (model.compiled, *model.compiled.batches.values())
            addresses = {
                (entry["offset"], one.data_ptr())
                for some, each in zip(weights, models, strict=True)
                for entry, one in zip(some, each._program.weights, strict=True)
            }
            assert len(addresses) == len(offsets)
            assert model.prepare_batches() == 4
            for found_, want in zip(server.stream(inputs * 3), wanted * 3, strict=True):
                assert (found_.exit, found_.label) == (want.exit, want.label)
                np.testing.assert_allclose(found_.scores, want.scores, rtol=1e-4, atol=1e-5)
            copy = model.save(tmp_path / "copy.so")
        with load(copy) as model:
            assert model.prepare_batches() == 4

    def test_a_batch_that_does_not_pay_is_left_out(
        self, found, sequence, tmp_path, monkeypatch, caplog
    ):
        monkeypatch.setattr(BatchTimes, "largest", lambda _self: 1)
        with build(network(NAME), found, sequence, race_s=0, batch=2, verify=False) as model:
            assert "no batch pays: time per request" in caplog.text
            assert model.prepare_batches() == 1
            file = model.save(tmp_path / "net.so")
        assert not read_header(file).get("batches")

    def test_declined(self, found, sequence, plan):
        beside = replace(plan, arrangement=Arrangement(trunk="cpu-1", branches=("cpu-1b",) * 2))
        with pytest.raises(NoBatches, match="batches run on one worker: got a plan with exits"):
            build(network(NAME), found, beside, race_s=0, batch=2, verify=False)


@pytest.mark.skipif(len(available_cores()) == 1, reason="needs two cores")
@pytest.mark.parametrize(("factor", "is_raced"), [(1.1, True), (1.3, False)])
def test_branches_beside_the_trunk_race_if_they_are_nearly_as_fast_as_planned(
    plan, factor, is_raced
):
    beside = next(one for one in plan.baselines if one.arrangement.is_beside)
    us = factor * plan.latencies.mean_us
    slower = replace(beside, latencies=replace(beside.latencies, mean_us=us))
    others = (*(one for one in plan.baselines if not one.arrangement.is_beside), slower)
    rivals = building._rivals(replace(plan, baselines=others))
    assert (slower in rivals) is is_raced
    assert any(not any(one.arrangement.branches) for one in rivals)


def test_a_faster_arrangement_than_the_pins_allow_can_be_kept(found):
    """The bound of a pinned plan may be above the value of a baseline that breaks the pins."""
    problem = ExitProblem(
        exits=network(NAME).names,
        costs=found.costs,
        policy=policy_of(0.0, 0.0),
        patterns=PATTERNS,
    )
    pinned = plan_exits(problem, pins=["exit1=off", "exit2=off"])
    faster = [one for one in pinned.baselines if one.latencies.mean_us < pinned.bound_us]
    assert faster
    for one in faster:
        kept = building._as_plan(pinned, one)
        assert ExitPlan.read(documents.to_json(kept), file="plan") == kept
