"""Servers of multi-exit networks: failures, bad settings, interrupts, forks and the end."""

from __future__ import annotations

import _thread
import itertools
import logging
import os
import threading
import time

import pytest
from exit_models import assert_ends_well, check, expected, images, policy_of, started
from stage_gate import LIMIT_S, Gate

from layoutsel.errors import ForkedError, InputError, LayoutselError, WorkerClosed
from layoutsel.exits.server import ExitServer

UNSURE = 1.0
BOTH = pytest.mark.parametrize("workers", ["aaa", "abb"])


def ended(before):
    """True once all threads but those from before have ended."""
    end = time.monotonic() + LIMIT_S
    while set(threading.enumerate()) - before and time.monotonic() < end:
        time.sleep(0.01)
    return not set(threading.enumerate()) - before


class TestFailures:
    def test_a_failed_worker_leaves_the_trunk_alone(self, slow, caplog):
        broken = threading.Event()

        def fail(stage):
            if broken.is_set() and stage == "branch0":
                raise OSError("the worker died")

        slow(fail)
        inputs = images("chain", 60)
        with started("chain", "abb", policy_of(UNSURE, UNSURE), answer="ordered") as model:
            with ExitServer(model) as server, caplog.at_level(logging.WARNING):
                for number, answer in enumerate(server.stream(inputs)):
                    check(answer, model.exits, expected("chain", inputs[number]))
                    if number == 2:
                        broken.set()
                assert server.statistics().failed == 0
            assert model.is_off
        assert caplog.text.count("exits are off") == 1

    def test_wrong_inputs_fail_alone(self):
        x = images("chain", 1)[0]
        with started("chain", "abb") as model, ExitServer(model) as server:
            wrong, right = server.submit(x[..., 0]), server.submit(x)
            with pytest.raises(InputError, match=r"got float32 of shape \(1, 4, 8\)"):
                wrong.result(LIMIT_S)
            check(right.result(LIMIT_S), model.exits, expected("chain", x))
            with pytest.raises(InputError):
                list(server.stream([x, x[..., 0], x]))

    def test_bad_settings(self):
        with started("chain", "aaa") as model:
            with pytest.raises(LayoutselError, match="got a queue of 0 requests"):
                ExitServer(model, queue=0)
            with pytest.raises(LayoutselError, match="got a batch of 0 requests"):
                ExitServer(model, batch=0)
            for deadline_ms in (0, -1, float("nan")):
                with pytest.raises(LayoutselError, match="expected a positive number or none"):
                    ExitServer(model, deadline_ms=deadline_ms)

    @BOTH
    def test_a_forked_process_needs_another_server(self, workers):
        """The child has no copies of the threads, and would wait for them."""
        x = images("chain", 1)[0]
        with started("chain", workers) as model, ExitServer(model) as server:
            server.submit(x).result(LIMIT_S)
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    with pytest.raises(ForkedError, match="make another server"):
                        server.submit(x)
                    with ExitServer(model) as other:
                        check(other.submit(x).result(LIMIT_S), model.exits, expected("chain", x))
                    status = 0
                finally:
                    os._exit(status)
            assert_ends_well(child)
            check(server.submit(x).result(LIMIT_S), model.exits, expected("chain", x))


class TestClosing:
    @BOTH
    def test_waiting_requests_fail_and_active_ones_end(self, slow, workers):
        gate = Gate(slow, "trunk0")
        x = images("chain", 1)[0]
        before = set(threading.enumerate())
        with started("chain", workers) as model:
            server = ExitServer(model, queue=3)
            gate.is_armed = True
            futures = [server.submit(x) for _ in range(server.places)]
            assert gate.reached.wait(LIMIT_S)
            time.sleep(0.1)
            threading.Timer(0.2, gate.open).start()
            server.close()
            for number, future in enumerate(futures):
                if number < model.places:
                    check(future.result(0), model.exits, expected("chain", x))
                else:
                    with pytest.raises(WorkerClosed, match="the server is closed"):
                        future.result(0)
            server.close()
            with pytest.raises(WorkerClosed):
                server.submit(x)
            check(model(x), model.exits, expected("chain", x))
        assert ended(before)

    @BOTH
    def test_an_interrupt_ends_a_stream(self, workers):
        before = set(threading.enumerate())
        x = images("chain", 1)[0]
        with started("chain", workers) as model:
            timer = threading.Timer(0.3, _thread.interrupt_main)
            timer.start()
            with pytest.raises(KeyboardInterrupt), ExitServer(model) as server:
                for _ in server.stream(itertools.repeat(x)):
                    pass
            check(model(x), model.exits, expected("chain", x))
        assert ended(before)

    def test_a_model_that_closes_fails_requests(self):
        x = images("chain", 1)[0]
        model = started("chain", "abb")
        with ExitServer(model) as server:
            model.close()
            with pytest.raises(WorkerClosed, match="the multi-exit network is closed"):
                server.submit(x).result(LIMIT_S)
            assert server.statistics().failed == 1

    def test_a_forgotten_server_ends_its_threads(self):
        before = set(threading.enumerate())
        server = ExitServer(started("chain", "abb"))
        server.submit(images("chain", 1)[0]).result(LIMIT_S)
        del server
        assert ended(before)
