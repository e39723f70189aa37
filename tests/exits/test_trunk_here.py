"""Trunks on the calling thread, with branches on a worker of another core."""

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
    assert_ends_well,
    check,
    drawn_exits,
    expected,
    images,
    network,
    policy_of,
    started,
)
from stage_gate import LIMIT_S, Gate

from layoutsel.device import stage_caller
from layoutsel.device.threads import available_cores, shares_openmp
from layoutsel.errors import DeadlineMissed, WorkerClosed
from layoutsel.exits.arrangement import ExitCosts, WorkerKind
from layoutsel.exits.server import ExitServer
from layoutsel.exits.trunk_here import pays

pytestmark = pytest.mark.skipif(
    len(available_cores()) < 2 or not shares_openmp(), reason="needs two cores and the plugin"
)
SURE, UNSURE = 0.0, 1.0
KINDS = tuple(WorkerKind(name=name, unit="cpu", threads=1, cores=1) for name in "ab")


def pinned(name="chain", workers="abbb", policy=None, **options):
    return started(name, workers, policy, KINDS, **options)


@pytest.mark.parametrize("name", ["chain", "residual", "cascade", "stacked", "on_input"])
def test_every_exit_equals_onnx_runtime(name):
    with pinned(name) as model:
        for x in images(name, 3):
            for answer in model.all(x):
                check(answer, model.exits, expected(name, x))


@pytest.mark.parametrize("answer", ["first", "ordered"])
def test_every_pattern_of_sure_exits(answer):
    exits = network("chain").names
    for pattern in itertools.product((SURE, UNSURE), repeat=2):
        with pinned(policy=policy_of(*pattern), answer=answer) as model:
            for x in images("chain", 5):
                found = model(x)
                check(found, exits, expected("chain", x))
                sure = [n for n, level in zip(exits, pattern, strict=False) if level == SURE]
                assert found.exit in (
                    [*sure, exits[-1]][:1] if answer == "ordered" else [*sure, exits[-1]]
                )


def test_the_trunk_is_on_the_calling_thread_and_pinned_meanwhile(slow):
    found = {}
    slow(
        lambda stage: found.setdefault(stage, (threading.current_thread(), os.sched_getaffinity(0)))
    )
    before = os.sched_getaffinity(0)
    with pinned(policy=policy_of(UNSURE, UNSURE)) as model:
        found.clear()
        model.all(images("chain", 1)[0])
    threads, cores = ({stage: pair[n] for stage, pair in found.items()} for n in (0, 1))
    here = threading.current_thread()
    assert {stage for stage, thread in threads.items() if thread is here} == {
        "trunk0",
        "trunk1",
        "trunk2",
    }
    assert {stage: len(some) for stage, some in cores.items()} == dict.fromkeys(found, 1)
    assert cores["trunk0"] == cores["trunk2"] != cores["branch0"] == cores["branch1"]
    assert os.sched_getaffinity(0) == before


def test_the_trunk_waits_for_no_branch_on_the_calling_thread(slow):
    """The second exit is on the trunk's worker and reads the first one, on the other worker."""
    found = {}
    slow(lambda stage: found.setdefault(stage, threading.current_thread()))
    with pinned("cascade", "aba", policy_of(UNSURE, UNSURE)) as model:
        found.clear()
        model.all(images("cascade", 1)[0])
    assert threading.current_thread() not in found.values()


def test_an_answer_stops_the_trunk_within_a_segment(monkeypatch, slow):
    """A sub-graph of the trunk is held until the branch's answer has cancelled it."""
    slow(lambda stage: held.wait(LIMIT_S) if is_armed and stage == "branch0" else None)
    held, is_armed, begun = threading.Event(), False, []
    make = stage_caller.native_instrument

    def instrument():
        native = make()

        def hold(function, name, before, *rest):
            if is_armed and before and not name.startswith("vm.builtin."):
                begun.append(name)
                if len(begun) == 2:
                    held.set()
                    time.sleep(0.2)  # the branch answers meanwhile
            native(function, name, before, *rest)

        return hold

    monkeypatch.setattr(stage_caller, "native_instrument", instrument)
    with pinned(policy=policy_of(SURE, UNSURE)) as model:
        x = images("chain", 1)[0]
        is_armed = True
        answer, runs = model.trace(x)
        assert (answer.exit, answer.cancelled) == ("exit1", True)
        assert answer.us < 2e5
        assert len(begun) == 2
        assert [run.complete for run in runs if run.worker == "a"][-1] is False
        is_armed = False
        check(model.all(x)[-1], model.exits, expected("chain", x))


def test_no_answer_is_that_of_another_request(slow):
    """2,500 requests with random delays before stages; inputs differ from one to the next."""
    generator = random.Random(2)

    def pause(stage):
        if generator.random() < 0.4:
            time.sleep(generator.choice((0, 2e-5, 1e-4, 3e-4)))

    slow(pause)
    inputs = images("chain", 12)
    wanted = [expected("chain", x) for x in inputs]
    medians = [float(np.median([want[e][1] for want in wanted])) for e in range(2)]
    with pinned(policy=policy_of(*medians)) as model:
        taken = drawn_exits(model, inputs, wanted, generator, 2_500)
        assert taken == set(model.exits)


def test_requests_of_several_threads_and_of_a_server():
    inputs = images("chain", 8)
    with pinned() as model, ThreadPoolExecutor(4) as pool, ExitServer(model) as server:
        called = pool.map(model, 30 * inputs)
        served = server.stream(30 * inputs)
        for x, one, other in zip(30 * inputs, called, served, strict=True):
            check(one, model.exits, expected("chain", x))
            check(other, model.exits, expected("chain", x))
        assert not model.is_off


def test_a_deadline_is_kept_in_the_middle_of_the_trunk(slow):
    gate = Gate(slow, "trunk2")
    with pinned(policy=policy_of(UNSURE, UNSURE)) as model:
        x = images("chain", 1)[0]
        gate.is_armed = True
        start_s = time.perf_counter()
        answer = model.by(start_s + 0.3, [x], {})
        assert 0.3 <= time.perf_counter() - start_s < LIMIT_S / 2
        assert answer.at_deadline
        assert answer.exit in model.exits[:-1]
        with pytest.raises(DeadlineMissed):
            model.by(start_s, [x], {})
        gate.open()
        check(model(x), model.exits, expected("chain", x))


def test_a_failed_branch_turns_exits_off_with_one_warning(slow, caplog):
    is_broken = False

    def fail(name):
        if is_broken and name == "branch0":
            raise OSError("the worker died")

    slow(fail)
    with pinned(policy=policy_of(UNSURE, UNSURE), answer="ordered") as model:
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


def test_the_error_of_a_trunk_is_its_callers(slow):
    is_broken = False

    def fail(name):
        if is_broken and name == "trunk1":
            raise OSError("no such stage")

    slow(fail)
    before = os.sched_getaffinity(0)
    with pinned(policy=policy_of(UNSURE, UNSURE)) as model:
        is_broken = True
        x = images("chain", 1)[0]
        with pytest.raises(OSError, match="no such stage"):
            model(x)
        assert os.sched_getaffinity(0) == before
        is_broken = False
        check(model(x), model.exits, expected("chain", x))
        assert not model.is_off


def test_closing_in_the_middle_of_a_request(slow):
    gate = Gate(slow, "trunk1")
    with ThreadPoolExecutor(1) as pool:
        model = pinned(policy=policy_of(UNSURE, UNSURE))
        gate.is_armed = True
        call = pool.submit(model, images("chain", 1)[0])
        assert gate.reached.wait(LIMIT_S)
        model.close()
        gate.open()
        with pytest.raises(WorkerClosed):
            call.result(LIMIT_S)


def test_a_forked_process_answers_as_well():
    x = images("chain", 1)[0]
    with pinned() as model:
        want = model.all(x)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = int([a.label for a in model.all(x)] != [a.label for a in want])
            finally:
                os._exit(status)
        assert_ends_well(child)


@pytest.mark.parametrize(
    ("stages_us", "is_here"),
    [
        ([(60.0, 60.0), (60.0,)], True),
        ([(120.0, 120.0), (120.0,)], False),
        ([(20.0,) * 30, (600.0,)], False),  # half of the time is in one sub-graph
        ([(), ()], True),
    ],
)
def test_long_subgraphs_have_a_worker(stages_us, is_here):
    kinds = (WorkerKind(name="both", unit="cpu", threads=2, cores=2), *KINDS)
    trunk_us = {"both": ((500.0,), (500.0,)), "a": tuple(stages_us), "b": tuple(stages_us)}
    costs = ExitCosts(
        workers=kinds, cores=2, trunk_us=trunk_us, branch_us=dict.fromkeys(trunk_us, ((1.0,),)),
        needs=((),),
    )  # fmt: skip
    assert pays(costs) is is_here


def test_a_model_may_keep_its_trunk_on_a_worker(slow):
    found = {}
    slow(lambda stage: found.setdefault(stage, threading.current_thread()))
    with pinned(policy=policy_of(UNSURE, UNSURE), trunk_here=False) as model:
        found.clear()
        model.all(images("chain", 1)[0])
    assert threading.current_thread() not in found.values()


def test_a_core_that_is_gone(monkeypatch):
    with pinned(policy=policy_of(UNSURE, UNSURE)) as model:

        def refused(_thread, _cores):
            raise OSError("Invalid argument")

        monkeypatch.setattr(os, "sched_setaffinity", refused)
        x = images("chain", 1)[0]
        check(model(x), model.exits, expected("chain", x))
        assert not model.is_off
