"""Servers of multi-exit networks: order of answers, back-pressure and deadlines."""

from __future__ import annotations

import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from exit_models import check, expected, images, in_batches, policy_of, started
from stage_gate import LIMIT_S, Gate

from layoutsel.errors import DeadlineMissed, InputError, LayoutselError, WorkerClosed
from layoutsel.exits.server import ExitServer

SURE, UNSURE = 0.0, 1.0
BOTH = pytest.mark.parametrize("workers", ["aaa", "abb"])


@BOTH
def test_answers_of_a_stream_are_in_order(workers):
    inputs = images("chain", 30)
    forms = [x if number % 2 else {"x": x} for number, x in enumerate(inputs)]
    with started("chain", workers) as model, ExitServer(model, queue=4) as server:
        found = list(server.stream(forms))
        assert len(found) == len(inputs)
        for x, answer in zip(inputs, found, strict=True):
            check(answer, model.exits, expected("chain", x))
        figures = server.statistics()
    assert figures.answered == len(inputs)
    assert figures.shares.keys() == {answer.exit for answer in found}
    assert sum(figures.shares.values()) == pytest.approx(1)
    assert figures.latency_us["worst"] == max(answer.us for answer in found)
    assert figures.latency_us["mean"] == pytest.approx(np.mean([answer.us for answer in found]))
    assert figures.throughput_hz > 0
    assert (figures.late, figures.missed, figures.failed) == (0, 0, 0)


@BOTH
def test_threads_and_direct_calls_at_once(workers):
    inputs = images("chain", 8)
    with started("chain", workers) as model, ThreadPoolExecutor(4) as pool:
        with ExitServer(model, queue=2) as server:
            served = pool.map(lambda x: server.submit(x).result(LIMIT_S), 20 * inputs)
            called = [model(x) for x in 5 * inputs]
            for x, answer in zip(20 * inputs, served, strict=True):
                check(answer, model.exits, expected("chain", x))
        for x, answer in zip(5 * inputs, called, strict=True):
            check(answer, model.exits, expected("chain", x))


@pytest.mark.parametrize("answer", ["first", "ordered"])
def test_no_answer_is_that_of_another_request(slow, answer):
    """1,500 requests, two of which are always in progress, with random delays before stages."""
    generator = random.Random(1)

    def pause(stage: str) -> None:
        if generator.random() < 0.3:
            time.sleep(generator.choice((0, 2e-5, 1e-4, 3e-4)))

    slow(pause)
    inputs = images("chain", 12)
    wanted = [expected("chain", x) for x in inputs]
    medians = [float(np.median([want[e][1] for want in wanted])) for e in range(2)]
    order = [generator.randrange(len(inputs)) for _ in range(1_500)]
    with started("chain", "abc", policy_of(*medians), answer=answer) as model:
        with ExitServer(model) as server:
            for index, found in zip(order, server.stream(inputs[n] for n in order), strict=True):
                check(found, model.exits, wanted[index])
                if answer == "ordered":
                    sure = (
                        e for e, level in enumerate((*medians, 0)) if wanted[index][e][1] >= level
                    )
                    assert model.exits.index(found.exit) == next(sure)
            assert set(server.statistics().shares) == set(model.exits)
        assert not model.is_off


def test_the_next_trunk_begins_while_a_branch_of_the_last_request_runs(slow):
    """The branch of the first request waits for the trunk of the second one."""
    begun, second = itertools.count(), threading.Event()
    is_armed = False

    def meet(stage):
        if is_armed and stage == "trunk0" and next(begun) == 1:
            second.set()
        if is_armed and stage == "branch1":
            assert second.wait(LIMIT_S)

    slow(meet)
    policy = policy_of(UNSURE, UNSURE)
    with started("chain", "abb", policy, answer="ordered") as model, ExitServer(model) as server:
        is_armed = True
        first, other = images("chain", 2)
        futures = [server.submit(first), server.submit(other)]
        for x, future in zip((first, other), futures, strict=True):
            check(future.result(LIMIT_S), model.exits, expected("chain", x))
        assert not model.is_off


def test_quick_requests_run_on_the_thread_that_submits_them(slow):
    """A stage that takes a millisecond is worth a switch of threads, and one of no time is not."""
    threads, inputs, pause_s = [], images("chain", 2), 1e-3
    slow(lambda stage: time.sleep(pause_s) or threads.append(threading.current_thread()))
    with started("chain", "aaa") as model, ExitServer(model) as server:
        threads.clear()
        for x in inputs * 10:
            check(server.submit(x).result(LIMIT_S), model.exits, expected("chain", x))
        assert threading.current_thread() not in threads
        pause_s = 0
        time.sleep(0.2)  # the server's thread adds its last time after the answer
        for _ in range(300):
            server._pace.add(1.0)
        threads.clear()
        assert server.submit(inputs[0]).done()
        assert set(threads) == {threading.current_thread()}
        with pytest.raises(InputError):
            server.submit(inputs[0][..., 0]).result(LIMIT_S)
        assert len(list(server.stream(inputs * 10))) == 20
    with started("chain", "aaa") as model, ExitServer(model) as server:
        for number, answer in enumerate(server.stream(inputs * 30)):  # begins on another thread
            check(answer, model.exits, expected("chain", inputs[number % 2]))
            threads.clear()
            for _ in range(300):
                server._pace.add(1.0)
        assert set(threads) <= {threading.current_thread()}
    with pytest.raises(WorkerClosed):
        server.submit(inputs[0])


class TestBackPressure:
    def test_a_stream_takes_no_more_than_there_are_places(self):
        taken = 0

        def requests():
            nonlocal taken
            for x in 10 * images("chain", 3):
                taken += 1
                yield x

        with started("chain", "abb") as model, ExitServer(model, queue=2) as server:
            assert server.places == 4
            for number, _ in enumerate(server.stream(requests())):
                assert taken <= number + 1 + server.places
            assert taken == 30

    @BOTH
    def test_callers_wait_for_a_place(self, slow, workers):
        gate = Gate(slow, "trunk0")
        x = images("chain", 1)[0]
        with started("chain", workers) as model, ExitServer(model, queue=1) as server:
            gate.is_armed = True
            futures = [server.submit(x) for _ in range(server.places)]
            with ThreadPoolExecutor(1) as pool:
                one_more = pool.submit(server.submit, x)
                assert gate.reached.wait(LIMIT_S)
                time.sleep(0.1)
                assert not one_more.done()
                with pytest.raises(DeadlineMissed, match=r"all \d places of the server were taken"):
                    server.submit(x, deadline_ms=20)
                gate.open()
                futures.append(one_more.result(LIMIT_S))
            for future in futures:
                check(future.result(LIMIT_S), model.exits, expected("chain", x))
            assert server.statistics().missed == 1

    def test_a_cancelled_request_gives_its_place_back(self, slow):
        gate = Gate(slow, "trunk0")
        x = images("chain", 1)[0]
        with started("chain", "aaa") as model, ExitServer(model, queue=1) as server:
            gate.is_armed = True
            server.submit(x)
            assert gate.reached.wait(LIMIT_S)
            for _ in range(5):
                assert server.submit(x).cancel()
            gate.open()


class TestDeadlines:
    @pytest.mark.parametrize(("workers", "held"), [("aaa", "trunk1"), ("abb", "trunk2")])
    def test_the_best_result_so_far(self, slow, workers, held):
        """The trunk is held beyond the deadline; branches in front of it have arrived, unsure."""
        is_armed = False
        slow(lambda stage: time.sleep(0.6) if is_armed and stage == held else None)
        policy = policy_of(UNSURE, UNSURE)
        x = images("chain", 1)[0]
        with started("chain", workers, policy, answer="ordered") as model:
            with ExitServer(model, deadline_ms=300) as server:
                is_armed = True
                answer = server.submit(x).result(LIMIT_S)
                assert answer.at_deadline
                assert answer.cancelled
                assert answer.exit != "final"
                check(answer, model.exits, expected("chain", x))
                assert answer.us >= 3e5
                is_armed = False
                after = server.submit(x, deadline_ms=1e3 * LIMIT_S).result(LIMIT_S)
                assert (after.exit, after.at_deadline) == ("final", False)
                figures = server.statistics()
            assert (figures.answered, figures.late, figures.at_deadline) == (2, 1, 1)
            assert not model.is_off or workers == "aaa"

    @BOTH
    def test_no_result_is_an_error_and_the_stream_continues(self, slow, workers):
        """Stages are held in the second of three requests alone."""
        number = itertools.count()
        slow(lambda stage: time.sleep(0.5) if stage == "trunk0" and next(number) == 2 else None)
        inputs = images("chain", 3)
        with started("chain", workers) as model, ExitServer(model) as server:
            first, missed, last = server.stream(inputs[:1] * 3, deadline_ms=250)
            assert isinstance(missed, DeadlineMissed)
            assert "no result of any exit at its deadline" in str(missed)
            check(first, model.exits, expected("chain", inputs[0]))
            # The last one waited behind the held one, and may have missed its deadline as well.
            if not isinstance(last, DeadlineMissed):
                check(last, model.exits, expected("chain", inputs[0]))
            answer = server.submit(inputs[2]).result(LIMIT_S)
            check(answer, model.exits, expected("chain", inputs[2]))
            assert server.statistics().missed >= 1
            assert server.statistics().failed == 0
            assert len(model.exits) == 3

    def test_a_request_that_waited_too_long_does_not_run(self, slow):
        gate = Gate(slow, "trunk1")
        stages = []
        slow(stages.append)
        x = images("chain", 1)[0]
        policy = policy_of(UNSURE, UNSURE)
        with started("chain", "aaa", policy) as model, ExitServer(model) as server:
            gate.is_armed = True
            stages.clear()
            first = server.submit(x)
            late = server.submit(x, deadline_ms=1)
            assert gate.reached.wait(LIMIT_S)
            time.sleep(0.01)
            gate.open()
            assert first.result(LIMIT_S).exit == "final"
            with pytest.raises(DeadlineMissed):
                late.result(LIMIT_S)
            assert stages.count("trunk0") == 1


class TestCopies:
    def test_two_requests_run_at_the_same_time(self, slow):
        """Each of two requests waits until the other one is in its trunk as well."""
        together, is_armed = threading.Barrier(2), False
        slow(lambda stage: together.wait(LIMIT_S) if is_armed and stage == "trunk0" else None)
        inputs = images("chain", 10)
        with started("chain", "aaa") as model, ExitServer(model, copies=2) as server:
            is_armed = True
            for x, answer in zip(inputs, server.stream(inputs), strict=True):
                check(answer, model.exits, expected("chain", x))

    @pytest.mark.parametrize("batch", [1, None])
    def test_every_answer_is_that_of_its_request(self, batch):
        inputs = images("chain", 12)
        wanted = [expected("chain", x) for x in inputs]
        medians = [float(np.median([want[e][1] for want in wanted])) for e in range(2)]
        order = np.random.default_rng(0).integers(len(inputs), size=2_000)
        with in_batches("chain", policy_of(*medians)) as model:
            with ExitServer(model, batch=batch, copies=2) as server:
                for index, found in zip(
                    order, server.stream(inputs[n] for n in order), strict=True
                ):
                    check(found, model.exits, wanted[index])
                    sure = (e for e, one in enumerate((*medians, 0)) if wanted[index][e][1] >= one)
                    assert model.exits.index(found.exit) == next(sure)
            check(model(inputs[0]), model.exits, wanted[0])  # the network itself stays open

    def test_what_cannot_be_copied(self):
        with started("chain", "abb") as model:
            with pytest.raises(LayoutselError, match="got 2 copies of a network that has branches"):
                ExitServer(model, copies=2)
            with pytest.raises(LayoutselError, match="got 0 copies"):
                ExitServer(model, copies=0)
