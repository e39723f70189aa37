"""Servers of multi-exit networks that were compiled for batches."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from exit_models import check, expected, images, in_batches, policy_of
from stage_gate import LIMIT_S, Gate

from layoutsel.errors import DeadlineMissed, InputError, RunTimeout
from layoutsel.exits import server as server_module
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.server import ExitServer
from layoutsel.runtime.compiled import CompiledModel

UNSURE = 1.0


class TestBatches:
    @pytest.mark.parametrize(
        ("most", "taken"), [(None, [1, 4, 1]), (1, [1] * 6), (3, [1, 3, 2]), (9, [1, 4, 1])]
    )
    def test_what_waits_when_a_worker_becomes_free(self, slow, monkeypatch, most, taken):
        """The first request is alone, as none waits for others; one that is cancelled is left out."""
        gate, seen = Gate(slow, "trunk0"), []
        answer_all = ExitModel.answer_all

        def counted(self, requests, *rest):
            seen.append(len(requests))
            answer_all(self, requests, *rest)

        monkeypatch.setattr(ExitModel, "answer_all", counted)
        inputs = images("chain", 7)
        with (
            in_batches("chain", policy_of(UNSURE, UNSURE)) as model,
            ExitServer(model, batch=most) as server,
        ):
            gate.is_armed = True
            futures = [server.submit(inputs[0])]
            assert gate.reached.wait(LIMIT_S)
            futures += [server.submit(x) for x in inputs[1:]]
            assert futures[3].cancel()
            gate.open()
            for number, (x, future) in enumerate(zip(inputs, futures, strict=True)):
                if number != 3:
                    check(future.result(LIMIT_S), model.exits, expected("chain", x))
        assert seen == taken

    def test_a_cancelled_request_leaves_its_batch(self, slow):
        """It is cancelled during the first stage; the others go on in the smaller size."""
        gate = Gate(slow, "trunk0-branch0")
        inputs = images("chain", 4)
        with in_batches("chain", policy_of(UNSURE, UNSURE)) as model, ExitServer(model) as server:
            held = threading.Event()
            server.submit(inputs[0]).add_done_callback(lambda _: held.wait(LIMIT_S))
            futures = [server.submit(x) for x in inputs]
            gate.is_armed = True
            held.set()
            assert gate.reached.wait(LIMIT_S)
            assert futures[1].cancel()
            gate.open()
            for number, (x, future) in enumerate(zip(inputs, futures, strict=True)):
                if number != 1:
                    check(future.result(LIMIT_S), model.exits, expected("chain", x))
            assert server.statistics().answered == 4
            assert len(list(server.stream(inputs * 5))) == 20  # all places are free again

    def test_a_request_alone_runs_on_the_calling_thread(self, slow):
        """Others take their turn; all of them have their own answers and errors."""
        gate, threads = Gate(slow, "trunk0"), []
        slow(lambda stage: threads.append(threading.current_thread()))
        inputs = images("chain", 4)
        with (
            in_batches("chain", policy_of(UNSURE, UNSURE)) as model,
            ExitServer(model) as server,
            ThreadPoolExecutor(4) as pool,
        ):
            threads.clear()
            check(server.answer(inputs[0]), model.exits, expected("chain", inputs[0]))
            assert set(threads) == {threading.current_thread()}
            with pytest.raises(InputError):
                server.answer(inputs[0][..., 0])
            gate.is_armed = True
            held = server.submit(inputs[0])
            assert gate.reached.wait(LIMIT_S)
            threads.clear()
            asked = [pool.submit(server.answer, x) for x in inputs]
            with pytest.raises(DeadlineMissed):
                server.answer(inputs[0], deadline_ms=1)
            assert not held.done()  # nobody waits longer than to the deadline
            gate.open()
            for x, one in zip([inputs[0], *inputs], [held, *asked], strict=True):
                check(one.result(LIMIT_S), model.exits, expected("chain", x))
            assert all(one.name.startswith("layoutsel-server") for one in threads)
            figures = server.statistics()
            assert (figures.answered, figures.missed, figures.failed) == (6, 1, 1)

    def test_requests_past_their_deadline_keep_their_places_until_they_are_found(self, slow):
        """Otherwise the queue would grow while one request takes long."""
        gate = Gate(slow, "trunk0")
        inputs = images("chain", 4)
        with (
            in_batches("chain", policy_of(UNSURE, UNSURE)) as model,
            ExitServer(model, queue=3) as server,
        ):
            gate.is_armed = True
            held = server.submit(inputs[0])
            assert gate.reached.wait(LIMIT_S)
            for x in inputs:
                with pytest.raises(DeadlineMissed):
                    server.answer(x, deadline_ms=1)
            missed = list(server.stream(inputs, deadline_ms=1))
            assert [type(one) for one in missed] == [DeadlineMissed] * 4
            assert not held.done()
            gate.open()
            check(held.result(LIMIT_S), model.exits, expected("chain", inputs[0]))
            for x, found in zip(inputs * 3, server.stream(inputs * 3), strict=True):
                check(found, model.exits, expected("chain", x))
            figures = server.statistics()
            assert (figures.answered, figures.missed, figures.failed) == (13, 8, 0)

    @pytest.mark.parametrize("places", [1, 4])
    def test_random_deadlines_are_counted_as_callers_see_them(self, places):
        """And every place comes back, whether a thread or the caller ends a request."""
        inputs = images("chain", 4)
        wanted = [expected("chain", x) for x in inputs]
        seen: Counter[str] = Counter()

        def ask(server, seed):
            draw = random.Random(seed)
            for _ in range(60):
                place, deadline_ms = draw.randrange(4), draw.choice([0.01, 0.1, 0.5, 1e3 * LIMIT_S])
                try:
                    if draw.random() < 0.5:
                        found = server.answer(inputs[place], deadline_ms=deadline_ms)
                    else:
                        (found,) = server.stream([inputs[place]], deadline_ms=deadline_ms)
                except DeadlineMissed as error:
                    found = error
                if isinstance(found, DeadlineMissed):
                    yield "missed"
                    continue
                if not found.at_deadline:
                    check(found, server.model.exits, wanted[place])
                yield "answered"

        with (
            in_batches("chain", policy_of(UNSURE, UNSURE)) as model,
            ExitServer(model, queue=places) as server,
            ThreadPoolExecutor(6) as pool,
        ):
            for found in pool.map(lambda seed: list(ask(server, seed)), range(6)):
                seen.update(found)
            assert len(list(server.stream(inputs * 5))) == 20  # all places are free again
            figures = server.statistics()
            assert (figures.answered, figures.missed) == (seen["answered"] + 20, seen["missed"])
            assert figures.failed == 0

    def test_streams_and_threads_at_once(self):
        inputs = images("chain", 12)
        wanted = [expected("chain", x) for x in inputs]
        levels = [float(np.median([want[e][1] for want in wanted])) for e in range(2)]
        with (
            in_batches("chain", policy_of(*levels)) as model,
            ThreadPoolExecutor(3) as pool,
            ExitServer(model, queue=6) as server,
        ):
            single = [model(x) for x in inputs]
            tasks = [pool.submit(lambda: list(server.stream(inputs * 20))) for _ in range(2)] + [
                pool.submit(lambda: [server.submit(x).result(LIMIT_S) for x in inputs * 20])
            ]
            for task in tasks:
                for number, found in enumerate(task.result(2 * LIMIT_S)):
                    check(found, model.exits, wanted[number % len(inputs)])
                    assert found.exit == single[number % len(inputs)].exit
            assert server.statistics().answered == 60 * len(inputs)

    def test_one_by_one_needs_no_code_of_batches(self, slow, monkeypatch):
        gate = Gate(slow, "trunk0")
        inputs = images("chain", 3)
        with in_batches("chain", policy_of(UNSURE, UNSURE)) as model:
            monkeypatch.setattr(CompiledModel, "batches", property(lambda _self: 1 / 0))
            with ExitServer(model, batch=1) as server:
                gate.is_armed = True
                futures = [server.submit(x) for x in inputs]
                assert gate.reached.wait(LIMIT_S)
                gate.open()
                for x, future in zip(inputs, futures, strict=True):
                    check(future.result(LIMIT_S), model.exits, expected("chain", x))

    def test_an_error_on_the_way_to_a_batch_ends_its_requests(self, slow, monkeypatch):
        gate = Gate(slow, "trunk0")
        inputs = images("chain", 3)
        with in_batches("chain", policy_of(UNSURE, UNSURE)) as model, ExitServer(model) as server:
            gate.is_armed = True
            futures = [server.submit(inputs[0])]
            assert gate.reached.wait(LIMIT_S)
            futures += [server.submit(x) for x in inputs[1:]]
            with monkeypatch.context() as broken:
                broken.setattr(ExitModel, "count_at_once", lambda *_: 1 / 0)
                gate.open()
                check(futures[0].result(LIMIT_S), model.exits, expected("chain", inputs[0]))
                with pytest.raises(ZeroDivisionError):
                    futures[1].result(LIMIT_S)
                check(futures[2].result(LIMIT_S), model.exits, expected("chain", inputs[2]))
            assert len(list(server.stream(inputs * 5))) == 15  # all places are free again

    def test_an_answer_that_comes_too_late_is_given_up(self, slow, monkeypatch):
        gate = Gate(slow, "trunk0")
        x = images("chain", 1)[0]
        with in_batches("chain", policy_of(UNSURE, UNSURE)) as model, ExitServer(model) as server:
            gate.is_armed = True
            held = server.submit(x)
            assert gate.reached.wait(LIMIT_S)
            with monkeypatch.context() as short:
                short.setattr(server_module, "LIMIT_S", 0.05)
                with pytest.raises(RunTimeout):
                    server.answer(x)
            gate.open()
            check(held.result(LIMIT_S), model.exits, expected("chain", x))
            assert len(list(server.stream([x] * 5))) == 5
            assert server.statistics().answered == 6
