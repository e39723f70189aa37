"""Multi-exit networks as they run: inline, on several workers, and when something goes wrong."""

from __future__ import annotations

import itertools
import logging
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from exit_models import (
    ARRANGEMENTS,
    WORKERS,
    arranged,
    assert_ends_well,
    check,
    compiled,
    expected,
    images,
    network,
    policy_of,
    started,
)
from exit_networks import NETWORKS

from layoutsel.device import worker_machines
from layoutsel.device.cancellation import CancelToken
from layoutsel.errors import InputError, LayoutselError, WorkerClosed
from layoutsel.exits import request as request_module
from layoutsel.exits.arrangement import WorkerKind
from layoutsel.exits.executor import ExitModel

LIMIT_S = 30
SURE, UNSURE = 0.0, 1.0
"""Thresholds that every score of these networks reaches, or none."""


@pytest.mark.parametrize("workers", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_exit_equals_onnx_runtime(name, workers):
    exits = network(name).names
    with started(name, workers) as model:
        for x in images(name, 3):
            answers = model.all(x)
            assert tuple(answer.exit for answer in answers) == exits
            for answer in answers:
                check(answer, exits, expected(name, x))


@pytest.mark.parametrize("answer", ["first", "ordered"])
@pytest.mark.parametrize("workers", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
@pytest.mark.parametrize("name", ["chain", "cascade", "shared_tap"])
def test_every_pattern_of_sure_exits(name, workers, answer):
    exits = network(name).names
    for pattern in itertools.product((SURE, UNSURE), repeat=len(exits) - 1):
        with started(name, workers, policy_of(*pattern), answer=answer) as model:
            for x in images(name, 5):
                found = model(x)
                check(found, exits, expected(name, x))
                sure = [n for n, level in zip(exits, pattern, strict=False) if level == SURE]
                in_order = answer == "ordered" or workers == ARRANGEMENTS["inline"]
                assert found.exit in ([*sure, exits[-1]][:1] if in_order else [*sure, exits[-1]])
                if answer == "ordered" and workers != ARRANGEMENTS["inline"]:
                    # The final exit may arrive while an earlier one is still unknown.
                    assert not (found.cancelled and found.exit == exits[-1])
                else:
                    assert found.cancelled == (found.exit != exits[-1])


def test_exits_that_are_off_neither_run_nor_answer():
    with started("chain", "a-b") as model:
        answer, runs = model.trace(images("chain", 1)[0])
        assert answer.exit in ("exit2", "final")
        assert "branch0" not in {run.name for run in runs}
    with started("chain", "a--") as model:
        assert model.is_off
        answer, runs = model.trace(images("chain", 1)[0])
        assert answer.exit == "final"
        assert not answer.cancelled
        assert [run.name for run in runs] == ["trunk0", "trunk1", "trunk2"]


def test_results_belong_to_the_caller():
    with started("chain", "abb") as model:
        first, second = images("chain", 2)
        answer = model(first)
        kept = answer.scores.copy()
        again = model(second)
        again.scores[:] = 0
        np.testing.assert_array_equal(answer.scores, kept)
        check(model(second), model.exits, expected("chain", second))


class TestTiming:
    @pytest.mark.parametrize("name", ["chain", "cascade"])
    @pytest.mark.parametrize("answer", ["first", "ordered"])
    def test_no_answer_is_that_of_another_request(self, slow, name, answer):
        """2,500 requests each with random delays before stages; inputs differ from one to the next."""
        generator = random.Random(0)

        def pause(stage: str) -> None:
            if generator.random() < 0.4:
                time.sleep(generator.choice((0, 2e-5, 1e-4, 3e-4)))

        slow(pause)
        exits = network(name).names
        inputs = images(name, 12)
        wanted = [expected(name, x) for x in inputs]
        medians = [float(np.median([want[e][1] for want in wanted])) for e in range(len(exits) - 1)]
        policy = policy_of(*medians)
        reference = [
            next(e for e, level in enumerate((*medians, 0)) if want[e][1] >= level)
            for want in wanted
        ]
        taken = set()
        with started(name, "abcb", policy, answer=answer) as model:
            for _ in range(2_500):
                index = generator.randrange(len(inputs))
                found = model(inputs[index])
                check(found, exits, wanted[index])
                exit_ = exits.index(found.exit)
                assert (*medians, 0)[exit_] <= wanted[index][exit_][1]
                if answer == "ordered":
                    assert exit_ == reference[index]
                taken.add(found.exit)
            assert not model.is_off
        assert taken == set(exits)

    def test_branches_run_beside_the_trunk(self, slow):
        """A branch and a later segment each wait for the other to be in its run as well."""
        together = threading.Barrier(2)

        def meet(stage: str) -> None:
            if stage in ("branch0", "trunk1"):
                together.wait(LIMIT_S)

        slow(meet)
        with started("chain", "abb", policy_of(SURE, UNSURE)) as model:
            assert model(images("chain", 1)[0]).exit in ("exit1", "final")

    def test_requests_of_several_threads(self):
        inputs = images("chain", 8)
        with started("chain", "abb") as model, ThreadPoolExecutor(4) as pool:
            for x, answer in zip(50 * inputs, pool.map(model, 50 * inputs), strict=True):
                check(answer, model.exits, expected("chain", x))

    @pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="needs two cores")
    def test_workers_have_cores_of_their_own(self, slow):
        found = {}
        compiled("chain")
        slow(lambda stage: found.setdefault(stage, os.sched_getaffinity(0)))
        kinds = [WorkerKind(name=name, unit="cpu", threads=1, cores=1) for name in "ab"]
        before = os.sched_getaffinity(0)
        policy = policy_of(UNSURE, UNSURE)
        with ExitModel(
            compiled("chain"), network("chain").names, arranged("chain", "abb"), policy,
            workers=kinds,
        ) as model:  # fmt: skip
            model.all(images("chain", 1)[0])
        assert {stage: len(cores) for stage, cores in found.items()} == dict.fromkeys(found, 1)
        assert found["trunk0"] == found["trunk2"] != found["branch0"] == found["branch1"]
        assert os.sched_getaffinity(0) == before


class TestCancelling:
    def test_the_trunk_stops_within_a_segment(self, monkeypatch, slow):
        """A sub-graph of the last segment is held until the branch's answer has cancelled it."""
        tokens = []
        make_token, make = CancelToken, worker_machines.instrument

        def token():
            tokens.append(make_token())
            return tokens[-1]

        held = threading.Event()
        armed = threading.Event()
        slow(lambda stage: held.wait(LIMIT_S) if armed.is_set() and stage == "branch0" else None)

        def instrument(current, *limit):
            native = make(current, *limit)

            def hold(function, name, before, *rest) -> None:
                is_trunk = tokens and current() is tokens[-2]
                if armed.is_set() and is_trunk and before and current().begun >= 2:
                    held.set()
                    end = time.monotonic() + LIMIT_S
                    while not current().cancelled and time.monotonic() < end:
                        time.sleep(0.001)
                native(function, name, before, *rest)

            return hold

        monkeypatch.setattr(worker_machines, "instrument", instrument)
        monkeypatch.setattr(request_module, "CancelToken", token)
        with started("chain", "abb", policy_of(SURE, UNSURE)) as model:
            x = images("chain", 1)[0]
            model.all(x)
            whole = tokens[-2].begun
            armed.set()
            answer, runs = model.trace(x)
            assert held.is_set()
            assert answer.exit == "exit1"
            assert answer.cancelled
            assert tokens[-2].begun < whole
            assert not all(run.complete for run in runs if run.worker == "a")
            armed.clear()
            check(model.all(x)[-1], model.exits, expected("chain", x))

    def test_ordered_waits_for_earlier_exits_without_the_rest_of_the_trunk(self, slow):
        """The second exit is sure while the first is held; the trunk then has stopped already."""
        release = threading.Event()
        slow(lambda stage: release.wait(LIMIT_S) if stage == "branch0" else None)
        slow(lambda stage: time.sleep(0.2) if stage == "trunk2" else None)
        release.set()
        with started("chain", "abc", policy_of(UNSURE, SURE), answer="ordered") as model:
            x = images("chain", 1)[0]
            release.clear()
            threading.Timer(0.5, release.set).start()
            answer, runs = model.trace(x)
            assert answer.exit == "exit2"
            assert answer.us > 4e5
            trunk = [run for run in runs if run.name == "trunk2"]
            assert all(not run.complete for run in trunk)


class TestFailures:
    @pytest.mark.parametrize("stage", ["branch0", "trunk1"])
    def test_a_failed_worker_turns_exits_off_with_one_warning(self, slow, caplog, stage):
        is_broken = False

        def fail(name: str) -> None:
            if (
                is_broken
                and name == stage
                and threading.current_thread() != threading.main_thread()
            ):
                raise OSError("the worker died")

        slow(fail)
        with started("chain", "abb", policy_of(UNSURE, UNSURE), answer="ordered") as model:
            is_broken = True
            with caplog.at_level(logging.WARNING):
                for x in images("chain", 4):
                    answer = model(x)
                    assert answer.exit == "final"
                    check(answer, model.exits, expected("chain", x))
            assert model.is_off
        assert [record.message for record in caplog.records] == [
            "exits are off, and the trunk alone answers: the worker died"
        ]

    @pytest.mark.parametrize("answer", ["first", "ordered"])
    @pytest.mark.parametrize("stage", ["branch0", "trunk1"])
    def test_an_overdue_worker_turns_exits_off(self, slow, caplog, stage, answer):
        is_stuck, release = False, threading.Event()

        def hang(name: str) -> None:
            if is_stuck and name == stage and threading.current_thread() != threading.main_thread():
                release.wait(LIMIT_S)

        slow(hang)
        policy = policy_of(UNSURE, UNSURE)
        with started("chain", "abb", policy, answer=answer, limit_s=0.3) as model:
            is_stuck = True
            x = images("chain", 1)[0]
            end = time.monotonic() + LIMIT_S
            while not model.is_off and time.monotonic() < end:
                check(model(x), model.exits, expected("chain", x))
            assert model.is_off
            assert [record.levelname for record in caplog.records].count("WARNING") <= 2
            assert caplog.text.count("exits are off") == 1
            assert model(x).exit == "final"
            release.set()

    def test_too_few_cores(self, caplog):
        kinds = [WorkerKind(name=name, unit="cpu", threads=1, cores=10_000) for name in "ab"]
        with ExitModel(
            compiled("chain"), network("chain").names, arranged("chain", "abb"),
            policy_of(SURE, SURE), workers=kinds,
        ) as model:  # fmt: skip
            assert model(images("chain", 1)[0]).exit == "final"
        assert "the workers take 10000 and 10000 cores" in caplog.text

    def test_wrong_inputs(self):
        with started("chain", "abb") as model:
            x = images("chain", 1)[0]
            with pytest.raises(InputError, match=r"got float32 of shape \(1, 4, 8\)"):
                model(x[..., 0])
            with pytest.raises(InputError, match="got float64"):
                model(x=x.astype("float64"))
            with pytest.raises(InputError, match="missing"):
                model()
            check(model(x=x), model.exits, expected("chain", x))

    @pytest.mark.parametrize("workers", ["aaa", "abb"])
    def test_not_a_number_is_unsure_with_one_warning(self, workers, caplog):
        with started("chain", workers, policy_of(SURE, SURE), answer="ordered") as model:
            x = np.full_like(images("chain", 1)[0], np.nan)
            for _ in range(2):
                assert model(x).exit == "final"
        assert caplog.text.count("is not a number") == 1

    def test_parts_that_do_not_fit(self):
        names, policy = network("chain").names, policy_of(SURE, SURE)

        def made(exits=names, workers="abb", policy=policy, kinds=WORKERS, **options):
            arrangement = arranged("chain", workers)
            return ExitModel(
                compiled("chain"), exits, arrangement, policy, workers=kinds, **options
            )

        with pytest.raises(LayoutselError, match="answer='last'; expected one of first, ordered"):
            made(answer="last")
        with pytest.raises(LayoutselError, match="got 2 branches; expected 1"):
            made(exits=names[:2])
        with pytest.raises(LayoutselError, match="got 2 thresholds; expected 3"):
            made(policy=policy_of(SURE))
        with pytest.raises(LayoutselError, match=r"\['a', 'b'\]; expected some of c"):
            made(kinds=WORKERS[2:])
        with pytest.raises(LayoutselError, match=r"which no stage that runs computes: got .*None"):
            started("cascade", "a-b")


class TestClosing:
    @pytest.mark.parametrize("workers", ["aaa", "abb"])
    def test_a_closed_model_answers_no_more(self, workers):
        model = started("chain", workers)
        model.close()
        model.close()
        with pytest.raises(WorkerClosed, match="is closed"):
            model(images("chain", 1)[0])

    @pytest.mark.parametrize("stage", ["trunk1", "branch0"])
    def test_in_the_middle_of_a_request(self, slow, stage):
        """The request ends at once, although a stage continues until it is released."""
        is_held, begun, release = False, threading.Event(), threading.Event()

        def hold(name: str) -> None:
            if is_held and name == stage:
                begun.set()
                release.wait(LIMIT_S)

        slow(hold)
        before = set(threading.enumerate())
        policy = policy_of(UNSURE, UNSURE)
        with ThreadPoolExecutor(2) as pool:
            model = started("chain", "abb", policy, answer="ordered")
            is_held = True
            call = pool.submit(model, images("chain", 1)[0])
            assert begun.wait(LIMIT_S)
            closing = pool.submit(model.close)
            with pytest.raises(WorkerClosed):
                call.result(LIMIT_S)
            release.set()
            closing.result(LIMIT_S)
        assert set(threading.enumerate()) == before

    def test_a_forgotten_model_ends_its_threads(self):
        before = set(threading.enumerate())
        started("chain", "abb")(images("chain", 1)[0])
        end = time.monotonic() + LIMIT_S
        while set(threading.enumerate()) != before and time.monotonic() < end:
            time.sleep(0.01)
        assert set(threading.enumerate()) == before

    @pytest.mark.parametrize("workers", ["aaa", "abb"])
    def test_a_forked_process_answers_as_well(self, workers):
        x = images("chain", 1)[0]
        with started("chain", workers) as model:
            want = model.all(x)
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    found = model.all(x)
                    status = int([a.label for a in found] != [a.label for a in want])
                finally:
                    os._exit(status)
            assert_ends_well(child)
            check(model(x), model.exits, expected("chain", x))
