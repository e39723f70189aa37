"""The process of one engine: loads the model once, then runs it in turns when told to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.benchmarking.engines import ENGINES, Job
from layoutsel.runtime.verify import rel_l2_err

WARM_UP_RUNS = 3


def prepare(connection: Connection, engine: str, job: Job) -> None:
    """Compile ahead of time and answer ``None``, or the error's text."""
    connection.send(_guarded(lambda: ENGINES[engine].prepare(job)))


def serve(connection: Connection, engine: str, job: Job, data: Path) -> None:
    """Load, answer what loading took and how far the results are off, then run turns until told to stop.

    A turn is a number of runs to make; the answer is their times in milliseconds. None ends the process.
    """
    with np.load(data) as arrays:
        inputs = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}
        expected = [arrays[key] for key in sorted(arrays.files) if key.startswith("out")]
    state: dict[str, Any] = {}

    def load() -> dict[str, float]:
        start = time.perf_counter()
        state["run"] = ENGINES[engine].load(job, inputs)
        loaded = time.perf_counter() - start
        results = state["run"]()
        return {"load_s": loaded, "rel_l2_err": _worst_error(results, expected)}

    answer = _guarded(load)
    connection.send(answer)
    if isinstance(answer, str):
        return
    while (runs := connection.recv()) is not None:
        connection.send(_turn(state["run"], runs))
    connection.send(peak_rss_mb())


def _worst_error(results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    return max(rel_l2_err(got, want) for got, want in zip(results, expected, strict=True))


def _turn(run: Any, runs: int) -> list[float]:
    for _ in range(WARM_UP_RUNS):
        run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def peak_rss_mb() -> float:
    """The largest resident set of this process so far, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _guarded(action: Any) -> Any:
    """The result of `action`, or the first line of its error: an engine's failure is a row, not an end."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - whatever a peer raises becomes its row
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
