"""Ways to end, to fork and to be late around a worker. Run as a program: ``stage_scenarios.py SCENARIO MODEL INPUTS``.

It prints ``ok``, or what went wrong.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time

import numpy as np
from fork_scenarios import LIMIT_S, OK, child

import layoutsel
from layoutsel.device.cancellation import CancelToken
from layoutsel.errors import ForkedError, RunTimeout, WorkerClosed


def fork(model, x: np.ndarray) -> str:
    """Children compute on threads of their own, and do not wait for the parent's runs."""
    worker = model.worker(threads=2)
    want = worker.run("main", {"input.0": x}).result(LIMIT_S)["output.0"]

    def same(one) -> str:
        got = one.run("main", {"input.0": x}).result(LIMIT_S)["output.0"]
        return OK if is_close(got, want) else "wrong"

    found = [child(lambda: same(worker)), child(lambda: same(model.worker())), child(lambda: OK)]
    held, go_on = threading.Event(), threading.Event()
    finish = lambda results: (held.set(), go_on.wait(LIMIT_S))  # noqa: E731 - as the others
    tensors = worker_inputs(x)
    waits = [worker.start("main", tensors, finish=finish) for _ in range(2)]
    held.wait()
    threading.Timer(0.3, go_on.set).start()

    def of_the_parent() -> str:
        try:
            waits[1].result(LIMIT_S)
        except ForkedError as error:
            return OK if "\n" not in str(error) else "several lines"
        return "no error"

    found.append(child(of_the_parent))
    for future in waits:
        future.result(LIMIT_S)
    found.append(same(worker))
    return OK if found == [OK] * len(found) else str(found)


def is_close(got: np.ndarray, want: np.ndarray) -> bool:
    """Compare results that may come from other numbers of threads, which add in other orders."""
    return np.allclose(got, want, rtol=1e-4, atol=1e-5)


def worker_inputs(x: np.ndarray):
    from layoutsel.runtime.arrays import to_tensor

    return [to_tensor(x)]


def exit_while_it_runs(model, x: np.ndarray) -> str:
    """Nobody closes the workers: one is idle, one has runs that wait for others."""
    idle, busy = model.worker(threads=2), model.worker(threads=2)
    idle.run("main", {"input.0": x}).result(LIMIT_S)
    for _ in range(200):
        busy.run("main", {"input.0": x}, CancelToken())
    return OK


def exit_while_threads_end(model, x: np.ndarray) -> str:
    """The last thread of a worker frees the code, so the interpreter waits for it."""
    from layoutsel.device.worker_loop import Loop

    watch = Loop._watch
    Loop._watch = lambda loop: (watch(loop), time.sleep(0.3))
    model.worker().run("main", {"input.0": x}).result(LIMIT_S)
    return OK


def too_late(model, x: np.ndarray) -> str:
    """A run that goes on beyond the limit fails, and so do those that wait; then the worker goes on."""
    worker = model.worker(limit_s=0.2)
    go_on, tensors = threading.Event(), worker_inputs(x)
    token = CancelToken()
    late = worker.start("main", tensors, token, lambda _results: go_on.wait(LIMIT_S))
    waits = worker.run("main", {"input.0": x})
    found = [type(future.exception(LIMIT_S)) for future in (late, waits)]
    try:
        worker.run("main", {"input.0": x})
    except RunTimeout as error:
        found.append(type(error))
    go_on.set()
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            again = worker.run("main", {"input.0": x}).result(LIMIT_S)
            break
        except RunTimeout:
            time.sleep(0.01)
    right = is_close(again["output.0"], model(x)) and token.cancelled
    return OK if found == [RunTimeout] * 3 and right else str(found)


def closed(model, x: np.ndarray) -> str:
    """Closing lets the runs end; closing with `cancel` fails those that wait."""
    with model.worker() as worker:
        runs = [worker.run("main", {"input.0": x}) for _ in range(3)]
    if not all(run.done() and run.exception() is None for run in runs):
        return "a run was lost"
    worker = model.worker()
    held, go_on = threading.Event(), threading.Event()
    finish = lambda results: (held.set(), go_on.wait(LIMIT_S))  # noqa: E731 - as the others
    first = worker.start("main", worker_inputs(x), finish=finish)
    second = worker.run("main", {"input.0": x})
    held.wait()
    threading.Timer(0.1, go_on.set).start()
    worker.close(cancel=True)
    is_right = first.exception() is None and isinstance(second.exception(), WorkerClosed)
    return OK if is_right else "not cancelled"


def name_threads() -> None:
    """Print the threads that have not ended; called after all of layoutsel's own functions."""
    names = [thread.name for thread in threading.enumerate() if "layoutsel" in thread.name]
    if names:
        print("left:", *names)


if __name__ == "__main__":
    atexit.register(name_threads)
    scenario, path, inputs, *options = sys.argv[1:]
    if "no-plugin" in options:
        from tvm_passes.onednn import plugin

        plugin.find_plugin = lambda *_: None
    affinity = os.sched_getaffinity(0)
    said = globals()[scenario](layoutsel.load(path), np.load(inputs))
    print(said if os.sched_getaffinity(0) == affinity else "the affinity changed")
