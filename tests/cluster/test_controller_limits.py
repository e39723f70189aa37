"""Places, threads, memory and time of a controller that is pressed hard, closed or without nodes."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from divided import LIMIT_S, PATIENT, ask, check, distribution, image, route, until

from layoutsel.errors import WorkerClosed
from tvm_passes.errors import LayoutselError

EDGE, A, B = (4 * (node,) for node in ("edge", "a", "b"))


def test_twenty_threads_ask_a_thousand_times(controller, compiled, stages):
    one = controller(distribution(stages, {A: 0.5, ("a", "a", "b", "edge"): 0.5}), limits=PATIENT)
    with ThreadPoolExecutor(20) as pool:
        futures = pool.map(lambda seed: one.submit({"input.0": image(seed % 50)}), range(1000))
        answers = [future.result(LIMIT_S)["output.0"] for future in futures]
    for start in range(0, 1000, 50):
        check(answers[start : start + 50], compiled)
    assert one.counts == {"answers": 1000}


def test_an_answered_request_keeps_no_memory(controller, stages):
    """Its time limit lasts much longer than the request."""
    one = controller(distribution(stages, {A: 1}), limits={"least_s": 2, "request_s": 600})
    x = image()
    kept = weakref.ref(x)
    one.submit({"input.0": x}).result(LIMIT_S)
    del x
    ask(one, 3)  # the loop and the engine let go of the last action
    until(lambda: gc.collect() >= 0 and kept() is None)


def test_an_engine_that_raises_ends_one_request(controller, compiled, stages, engine):
    one = controller(distribution(stages, {A: 1}), limits=PATIENT)
    engine.raising["s0"] = LayoutselError("no room for a tensor")
    with pytest.raises(LayoutselError, match="no room for a tensor"):
        one.submit({"input.0": image()}).result(LIMIT_S)
    check(ask(one, 3), compiled)


def test_what_is_no_array_ends_nothing_else(controller, compiled, stages):
    one = controller(distribution(stages, {A: 1}), limits={**PATIENT, "in_flight": 1})
    for _ in range(2):
        with pytest.raises(AttributeError):
            one.submit({"input.0": "text"})
    check(ask(one, 2), compiled)


def test_places_of_a_lost_nodes_requests_go_to_others(controller, compiled, stages, engine):
    """Node b waits for an input from node a, which falls silent, and others wait for b."""
    limits = {"window": 1, "least_s": 3}
    without = {"a": EDGE}
    one = controller(distribution(stages, {("a", "a", "b", "b"): 1}, without), limits=limits)
    engine.stuck.add(("s1", "b"))
    first = one.submit({"input.0": image(0)})
    until(lambda: any(work.node == "b" for work in engine.started))
    engine.silent.add("a")
    whole = route(stages, B)
    others = [one.submit({"input.0": image(seed)}, whole) for seed in (1, 2)]
    answers = [future.result(LIMIT_S)["output.0"] for future in (first, *others)]
    check(answers, compiled)
    assert one.quarantined == {"a"}
    assert one.counts["failures"] == 0


def test_a_request_that_is_stranded_twice_waits_twice(controller, compiled, stages, engine):
    one = controller(distribution(stages, {A: 1}), limits={**PATIENT, "stranded_s": 5})
    engine.dead.add("a")
    future = one.submit({"input.0": image(0)})
    time.sleep(2.5)
    engine.die_at["s0"] = "dead"
    engine.dead.clear()  # it returns, and dies again at the first segment
    until(lambda: not engine.die_at)
    time.sleep(2.6)  # after the end of the first wait
    engine.dead.clear()
    check([future.result(LIMIT_S)["output.0"]], compiled)


def test_closing_in_the_middle_leaves_nobody_waiting(controller, compiled, stages):
    """Requests of several threads have an answer or an error soon after the end."""
    one = controller(distribution(stages, {A: 1}), limits={**PATIENT, "in_flight": 8})
    futures, turn = [], threading.Lock()

    def send() -> None:
        while True:
            try:
                future = one.submit({"input.0": image()})
            except WorkerClosed:
                return
            with turn:
                futures.append(future)

    with ThreadPoolExecutor(8) as pool:
        senders = [pool.submit(send) for _ in range(8)]
        until(lambda: len(futures) > 50)
        one.close()
        for sender in senders:
            sender.result(LIMIT_S)
    for future in futures:
        error = future.exception(LIMIT_S)
        assert error is None or isinstance(error, WorkerClosed)
        if error is None:
            check([future.result()["output.0"]], compiled)
    with pytest.raises(WorkerClosed):
        one.switch(distribution(stages, {B: 1}))
