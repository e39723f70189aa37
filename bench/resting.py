"""Latency of requests that do not follow one another at once: processors and threads have rested for a while.

``python bench/resting.py light:squeezenet … --json bench/results/resting.json``: after each gap one request; engines in turns,
each in a process of its own. Median and percentiles in milliseconds, and times the layoutsel's of the same gap.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from script import run

from layoutsel.benchmarking.cases import case_name, write_case
from layoutsel.benchmarking.engine import EngineJob
from layoutsel.benchmarking.engines import ENGINES
from layoutsel.benchmarking.racer import LOAD_LIMIT_S, PREPARE_LIMIT_S, TURN_LIMIT_S, Process
from layoutsel.benchmarking.worker import be_quiet, guarded, prepare

COMPARED = "layoutsel", "onnxruntime", "openvino"
GAPS_MS = (0, 1, 5, 20, 50)
ROUNDS, REQUESTS, WARM_UP = 4, 60, 5


def serve(
    connection: Connection, engine: str, job: EngineJob, inputs: dict[str, np.ndarray]
) -> None:
    """Load a model; then answer each gap in seconds with the milliseconds of requests after it."""
    be_quiet()
    loaded: dict[str, Any] = {}

    def load() -> None:
        loaded["run"] = ENGINES[engine].load(job, inputs)

    connection.send(guarded(load))
    while (gap_s := connection.recv()) is not None:
        times = []
        for _ in range(WARM_UP + REQUESTS):
            time.sleep(gap_s)
            start = time.perf_counter()
            loaded["run"]()
            times.append(1e3 * (time.perf_counter() - start))
        connection.send(("done", times[WARM_UP:]))


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """Times of every engine after every gap."""
    with tempfile.TemporaryDirectory() as folder:
        case = write_case(model, None, Path(folder))
        job = EngineJob(
            model=case.model, threads=threads, precision="f32", workdir=Path(folder), options={}
        )
        inputs = dict(case.inputs)
        engines = {}
        for name in COMPARED:
            if ENGINES[name].prepare is not None:
                preparing = Process(prepare, name, job)
                preparing.answer(PREPARE_LIMIT_S)
                preparing.close()
            engines[name] = Process(serve, name, job, inputs)
        for process in engines.values():
            process.answer(LOAD_LIMIT_S)
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(ROUNDS):
            for gap in GAPS_MS:
                for name, process in engines.items():
                    found = process.ask(gap / 1e3, TURN_LIMIT_S)
                    times.setdefault((name, gap), []).extend(found)
        for process in engines.values():
            process.close()
    for gap in GAPS_MS:
        ours = float(np.median(times["layoutsel", gap]))
        for name in COMPARED:
            p50, p95, p99 = (float(one) for one in np.percentile(times[name, gap], (50, 95, 99)))
            yield {
                "model": case_name(model),
                "engine": name,
                "gap_ms": gap,
                "p50_ms": round(p50, 4),
                "p95_ms": round(p95, 4),
                "p99_ms": round(p99, 4),
                "x_layoutsel": round(p50 / ours, 3),
                "requests": len(times[name, gap]),
            }


if __name__ == "__main__":
    run(rows, __doc__)
