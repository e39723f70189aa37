"""Process of one engine, which loads a model once and then runs it on request.

It sends pairs ``(kind, value)``: ``progress`` with a text, ``error`` with a text, or ``done`` with
the answer.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.benchmarking.case_data import read_case_data
from layoutsel.benchmarking.engine import EngineJob
from layoutsel.benchmarking.engines import ENGINES
from layoutsel.runtime.samples import rel_l2_err

WARM_UP_RUNS = 3
"""Number of untimed runs before a turn."""
WARM_UP_S = 0.1
"""Time limit of the warm-up, seconds; a slow engine makes fewer runs."""


def prepare(connection: Connection, engine: str, job: EngineJob) -> None:
    """Compile a model ahead of time; the answer to the parent is None."""
    be_quiet()

    def report(text: str) -> None:
        connection.send(("progress", text))

    action = ENGINES[engine].prepare
    assert action is not None, f"{engine} needs no preparation"
    connection.send(guarded(functools.partial(action, job, report)))


def serve(connection: Connection, engine: str, job: EngineJob, data: Path) -> None:
    """Load a model, then run it whenever the parent requests a turn.

    The first answer has the load time in seconds, the error of each expected result, and a text
    about the settings. A request is a number of runs, and its answer is their times in
    milliseconds. The request None ends the process, and its answer is the peak memory in MB.
    """
    be_quiet()
    inputs, expected = read_case_data(data)
    state: dict[str, Any] = {}

    def load() -> dict[str, Any]:
        start = time.perf_counter()
        state["run"] = ENGINES[engine].load(job, inputs)
        loaded = time.perf_counter() - start
        results = state["run"]()
        settings = ENGINES[engine].settings(job)
        return {"load_s": loaded, "errors": _errors(results, expected), "settings": settings}

    answer = guarded(load)
    connection.send(answer)
    if answer[0] == "error":
        return
    while (runs := connection.recv()) is not None:
        connection.send(guarded(functools.partial(_turn, state["run"], runs)))
    connection.send(("done", peak_rss_mb()))


def be_quiet() -> None:
    """Leave Ctrl-C to the parent, and discard the output of the engine's libraries."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    logging.basicConfig(level=logging.ERROR)


def _errors(results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> list[float]:
    """Error of each expected result; empty if there is no reference."""
    if len(results) < len(expected):
        raise ValueError(f"got {len(results)} outputs; expected {len(expected)}")
    return [rel_l2_err(got, want) for got, want in zip(results, expected, strict=False)]


def _turn(run: Callable[[], object], runs: int) -> list[float]:
    start = time.perf_counter()
    for _ in range(WARM_UP_RUNS):
        if time.perf_counter() - start < WARM_UP_S:
            run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def guarded(action: Callable[[], Any]) -> tuple[str, Any]:
    """Result of `action`, or the first line of its error, which becomes a row of the results."""
    try:
        return "done", action()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return "error", f"{type(error).__name__}: {lines[0]}"
