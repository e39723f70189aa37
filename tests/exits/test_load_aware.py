"""Networks that adapt to the load: answers under random switches, audits, artifacts."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from exit_models import (
    WORKERS,
    arranged,
    check,
    compiled,
    expected,
    images,
    network,
    policy_of,
    with_batches,
)

from layoutsel.device.core_load import CoreLoad
from layoutsel.device.threads import available_cores
from layoutsel.errors import LayoutselError, WorkerClosed
from layoutsel.exits.arrangement import Arrangement, WorkerKind
from layoutsel.exits.audit import ExitAudit
from layoutsel.exits.building import load
from layoutsel.exits.controller import Choice, PlanController
from layoutsel.exits.costs import priced
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.load_aware import LoadAwareModel
from layoutsel.exits.load_aware_building import open_for_loads, table_for
from layoutsel.exits.load_grid import LoadGrid
from layoutsel.exits.load_table import SCHEMA_VERSION, LoadTable
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.planner import ExitProblem, plan_exits
from layoutsel.exits.policy import Certificate
from layoutsel.exits.server import ExitServer
from layoutsel.exits.steps import compile_for_loads

NAME = "chain"
LAYOUTS = ("aaa", "abb", "abc", "aab", "bcc", "a--", "a-b")
"""Arrangements; with exits off in the last two."""


def table_of(layouts) -> LoadTable:
    count = len(layouts)
    grid = LoadGrid(cores=2, busy=(0.0, 1.0, 2.0))
    rows = tuple(tuple(100.0 + (cell + n) % count for n in range(count)) for cell in range(3))
    return LoadTable(
        schema_version=SCHEMA_VERSION,
        grid=grid,
        objective="mean",
        arrangements=tuple(arranged(NAME, one) for one in layouts),
        value_us=rows,
        mean_us=rows,
        best_us=(100.0,) * 3,
        bound_us=(100.0,) * 3,
        factors=(1.0,) * count,
    )


def started(layouts, policy, audit=None, model=None, **options) -> LoadAwareModel:
    table = table_of(layouts)
    model = ExitModel(
        model or compiled(NAME),
        network(NAME).names,
        table.arrangements[0],
        policy,
        workers=WORKERS,
        others=table.arrangements,
        **options,
    )
    control = PlanController(table, interval_s=1000)  # the tests choose
    return LoadAwareModel(model, table, control, audit or ExitAudit(None, share=0.0))


def choose(model: LoadAwareModel, chosen: int, *, from_last: bool = False) -> None:
    model.controller.choice = Choice(0, chosen, model.table.off[0], from_last)


def median_policy(name: str):
    """Policy that makes each exit sure of about half of the images."""
    scores = np.array([[score for _, score, _ in expected(name, x)] for x in images(name, 40)])
    return policy_of(*(float(level) for level in np.median(scores, axis=0)[:-1]))


def ordered(policy, arrangement: Arrangement, want) -> int:
    """Exit that answers if the exits are asked one after the other."""
    for exit_, (worker, level) in enumerate(
        zip(arrangement.branches, policy.thresholds, strict=False)
    ):
        if worker is not None and want[exit_][1] >= level:
            return exit_
    return len(want) - 1


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_no_switch_changes_an_answer(share):
    """Two threads ask while a third one switches at random times, to all arrangements."""
    policy = median_policy(NAME)
    inputs = images(NAME, 40)
    wanted = [expected(NAME, x) for x in inputs]
    exits = network(NAME).names
    layouts = LAYOUTS[:5]  # the same exits run in all of them
    answers = [{ordered(policy, arranged(NAME, one), want) for one in layouts} for want in wanted]
    assert all(len(found) == 1 for found in answers)
    assert len(set.union(*answers)) == 3  # all exits answer
    stop = threading.Event()
    audit = ExitAudit(None, share=share, seed=0)

    def switch(model):
        draw = random.Random(1)
        while not stop.wait(draw.random() * 2e-3):
            choose(model, draw.randrange(len(layouts)), from_last=draw.random() < 0.5)

    def ask(model, seed):
        draw = random.Random(seed)
        for _ in range(200):
            number = draw.randrange(len(inputs))
            answer = model(inputs[number])
            (exit_,) = answers[number]
            assert answer.exit == exits[exit_]
            values, _, label = wanted[number][exit_]
            assert answer.label == label
            np.testing.assert_allclose(answer.scores, values, rtol=1e-4, atol=1e-5)

    with started(LAYOUTS, policy, audit, answer="ordered") as model:
        with ThreadPoolExecutor(3) as pool:
            switching = pool.submit(switch, model)
            asking = [pool.submit(ask, model, seed) for seed in (2, 3)]
            try:
                for one in asking:
                    one.result(120)
            finally:
                stop.set()
            switching.result(10)
        assert (audit.statistics().requests > 50) == (share > 0)


@pytest.mark.parametrize("chosen", range(len(LAYOUTS)))
def test_exits_that_run_are_those_of_the_choice(chosen):
    policy = median_policy(NAME)
    exits = network(NAME).names
    with started(LAYOUTS, policy, answer="ordered") as model:
        choose(model, chosen)
        for x in images(NAME, 20):
            exit_ = ordered(policy, model.table.arrangements[chosen], expected(NAME, x))
            assert model(x).exit == exits[exit_]


class TestAudit:
    def test_statistics_are_those_of_the_network(self):
        policy = median_policy(NAME)
        inputs = images(NAME, 40)
        audit = ExitAudit(None, share=1.0)
        with started(LAYOUTS, policy, audit) as model:
            for number, x in enumerate(inputs):
                choose(model, number % 3)
                answer = model(x)
                sure = ordered(policy, model.table.arrangements[0], expected(NAME, x))
                assert answer.exit == model.model.exits[sure]
        found = audit.statistics()
        patterns, disagreements = {}, 0
        for x in inputs:
            *early, final = expected(NAME, x)
            sure = tuple(
                e for e, (_, score, _) in enumerate(early) if score >= policy.thresholds[e]
            )
            patterns[sure] = patterns.get(sure, 0) + 1
            disagreements += any(early[e][2] != final[2] for e in sure)
        assert dict(found.patterns) == patterns
        assert found.disagreements == disagreements > 0
        assert found.requests == 40

    def test_a_broken_promise_switches_exits_off(self, caplog):
        """Exits of random weights disagree often; all are sure."""
        audit = ExitAudit(0.01, share=0.2, seed=0)
        with (
            caplog.at_level(logging.WARNING),
            started(LAYOUTS, policy_of(0.0, 0.0), audit) as model,
        ):
            for x in itertools.islice(itertools.cycle(images(NAME, 40)), 400):
                before = audit.is_at_risk
                answer = model(x)
                assert (answer.exit == "final") == before
        assert audit.is_at_risk
        assert caplog.text.count("accuracy promise at risk") == 1

    def test_nothing_to_audit_without_exits(self):
        audit = ExitAudit(None, share=1.0)
        with started(LAYOUTS, policy_of(0.0, 0.0), audit) as model:
            choose(model, LAYOUTS.index("a--"))
            assert model(images(NAME, 1)[0]).exit == "final"
        assert audit.statistics().requests == 0


def test_audited_requests_run_alone_and_the_others_as_a_batch():
    """All requests have the answer that they have alone, whichever of them are audited."""
    inputs = images(NAME, 20)
    policy = median_policy(NAME)
    audit = ExitAudit(None, share=0.3, seed=1)
    model = started(("aaa", "abb", "a--"), policy, audit, model=with_batches(NAME))
    with model, ExitServer(model) as server:
        for x, answer in zip(inputs, server.stream(inputs), strict=True):
            want = expected(NAME, x)
            check(answer, model.exits, want)
            assert model.exits.index(answer.exit) == ordered(
                policy, model.table.arrangements[0], want
            )
        assert 0 < model.audit.statistics().requests < len(inputs)
        choose(model, 1)  # with branches on another worker, there are no batches
        assert model.count_at_once(4) == 1
        choose(model, 0)
        assert model.count_at_once(4) == 4


def test_a_failed_worker_switches_every_arrangement_off(caplog):
    with started(LAYOUTS, policy_of(0.0, 0.0), limit_s=30) as model:
        choose(model, LAYOUTS.index("abb"))
        x = images(NAME, 1)[0]
        assert model(x).exit != ""
        for worker in model.model._pool._workers.values():
            worker.close(cancel=True)
        for chosen in range(len(LAYOUTS)):
            choose(model, chosen)
            if LAYOUTS[chosen] != "aaa":
                assert model(x).exit == "final"
    assert caplog.text.count("exits are off") == 1


@pytest.mark.skipif(len(available_cores()) == 1, reason="needs two cores")
def test_the_order_of_the_cores_swaps_the_workers():
    kinds = tuple(WorkerKind(name=name, unit="cpu", threads=1, cores=1) for name in "ab")
    one = arranged(NAME, "abb")
    exits = network(NAME).names
    sure = policy_of(0.0, 0.0)
    with ExitModel(compiled(NAME), exits, one, sure, workers=kinds, others=(one,)) as model:
        for from_last in (False, True):
            (x,) = images(NAME, 1)
            model.from_last = from_last
            lanes = model._pool.runner(one)
            trunk, branch = (worker._settings.cores for worker in lanes._workers)
            assert (trunk > branch) == from_last
            answer = model(x)
            want = dict(zip(exits, expected(NAME, x), strict=True))[answer.exit]
            assert answer.label == want[2]


def test_closed():
    model = started(LAYOUTS, policy_of(0.0, 0.0))
    model.close()
    with pytest.raises(WorkerClosed):
        model(images(NAME, 1)[0])


@pytest.fixture(scope="module")
def made():
    found = priced(network(NAME), units=["cpu"], cost="roofline")
    proof = Certificate(
        max_drop=0.03,
        confidence=0.9,
        samples=500,
        losses=1,
        bound=0.01,
        data_hash="0",
        has_labels=False,
    )
    problem = ExitProblem(
        exits=network(NAME).names,
        costs=found.costs,
        policy=replace(policy_of(0.0, 0.0), certificate=proof),
        patterns=(SurePattern(exits=(0, 1), samples=3), SurePattern(exits=(), samples=1)),
    )
    plan = plan_exits(problem, model_name=NAME, model_hash=network(NAME).spec.model_hash)
    plan = replace(plan, plans={str(count): one for count, one in found.plans.items()})
    return plan, table_for(plan), compile_for_loads(network(NAME), plan, race_s=1)


class TestArtifact:
    def test_saved_and_opened(self, made, tmp_path):
        plan, table, compiled_model = made
        file = compiled_model.save(tmp_path / "net.so")
        with open_for_loads(file, audit_share=1.0) as model:
            assert model.table.arrangements == table.arrangements
            assert all(factor > 0 for factor in model.table.factors)
            assert model.audit.statistics().allowed == 0.03
            assert model.model.exits == plan.exits
            for x in images(NAME, 5):
                answer = model(x)
                want = dict(zip(plan.exits, expected(NAME, x), strict=True))[answer.exit]
                assert answer.label == want[2]
        with load(file) as plain:  # for the idle machine alone
            assert plain.arrangement == plan.arrangement

    def test_no_choice_is_slower_than_the_trunk_alone(self, made):
        table = made[2].header["exit_table"]
        found = LoadTable.read(table, made[0].costs)
        values_us = found.values_us
        for cell, (chosen, off) in enumerate(zip(found.chosen, found.off, strict=True)):
            assert values_us[cell, chosen] <= values_us[cell, off]
        assert found.grid.cell(CoreLoad.idle(found.grid.cores)) == 0

    def test_an_artifact_without_a_table(self, made):
        bare = compiled(NAME)
        bare.header["exits"] = made[2].header["exits"]
        try:
            with pytest.raises(LayoutselError, match="has no table of arrangements by load"):
                open_for_loads(bare)
        finally:
            del bare.header["exits"]


def test_a_server_of_a_network_that_adapts(slow):
    """Audited requests and others by a deadline; the audit takes none that ended before it."""
    is_armed = False
    slow(lambda stage: time.sleep(0.5) if is_armed and stage == "trunk2" else None)
    inputs = images(NAME, 6)
    with (
        started(
            ("abb", "abc", "a--"), policy_of(1.0, 1.0), audit=ExitAudit(None, share=1.0)
        ) as model,
        ExitServer(model, queue=3) as server,
    ):
        assert server.places == 5
        for x, answer in zip(inputs, server.stream(inputs), strict=True):
            values, _, label = expected(NAME, x)[-1]
            np.testing.assert_allclose(answer.scores, values, rtol=1e-4, atol=1e-5)
            assert (answer.exit, answer.label) == ("final", label)
        audited = model.audit.statistics().requests
        is_armed = True
        assert server.submit(inputs[0], deadline_ms=300).result(30).at_deadline
        assert model.audit.statistics().requests == audited
