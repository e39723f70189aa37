"""A multi-exit network under random arrivals, against its exits in sequence and its trunk alone.

``PYTHONPATH=bench python -m exits.serving net.exits.so test.npz --json bench/results/exits_serving.json``: requests arrive
by a Poisson process at shares of the rate that the trunk alone sustains, one arrangement after the other in each round.
Latencies count from the arrival, so that a late start is part of them. At these rates every arrangement that keeps up has
the throughput of the arrivals; the largest one is measured with a full queue.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.benchmarking.compare import save
from layoutsel.device.machine import this_machine
from layoutsel.exits.comparing import ALONE, CHOSEN, contenders
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.samples import Samples, read_samples
from layoutsel.exits.server import ExitServer

SHARES = (0.3, 0.5, 0.7, 0.9)
"""Arrivals as shares of the throughput of the trunk alone."""
ROUNDS = 3
LIMIT_S = 60.0


def full_hz(model: ExitModel, samples: Samples, requests: int) -> float:
    """Answers per second while the queue is never empty."""
    count = len(samples.inputs)
    with ExitServer(model) as server:
        start = time.perf_counter()
        for _ in server.stream(samples.inputs[n % count] for n in range(requests)):
            pass
        return requests / (time.perf_counter() - start)


def served(model: ExitModel, samples: Samples, gaps_s: np.ndarray) -> tuple[np.ndarray, float]:
    """Latencies of requests that arrive after these gaps, microseconds, and answers per second."""
    ends = np.zeros(len(gaps_s))
    with ExitServer(model, queue=len(gaps_s)) as server:
        begin = time.perf_counter() + 0.01
        arrivals = begin + np.cumsum(gaps_s)
        futures = []
        for number, arrival in enumerate(arrivals):
            time.sleep(max(0.0, arrival - time.perf_counter()))
            future = server.submit(samples.inputs[number % len(samples.inputs)])
            future.add_done_callback(
                lambda _, number=number: ends.__setitem__(number, time.perf_counter())
            )
            futures.append(future)
        for future in futures:
            future.result(LIMIT_S)
    return 1e6 * (ends - arrivals), len(ends) / (ends.max() - begin)


def rows_of(
    models: Mapping[str, ExitModel], samples: Samples, requests: int, seed: int
) -> list[dict[str, Any]]:
    """Figures of all arrangements at all rates; each round has the same arrivals for all of them."""
    generator = np.random.default_rng(seed)
    full: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            full[name].append(full_hz(model, samples, requests))
    base_hz = float(np.median(full[ALONE if ALONE in full else CHOSEN]))
    rows = []
    for share in SHARES:
        found: dict[str, list[tuple[np.ndarray, float]]] = {name: [] for name in models}
        for _ in range(ROUNDS):
            gaps_s = generator.exponential(1 / (share * base_hz), requests)
            for name, model in models.items():
                found[name].append(served(model, samples, gaps_s))
        for name, runs in found.items():
            p99 = [float(np.percentile(times, 99)) for times, _ in runs]
            rows.append(
                {
                    "arrangement": name,
                    "utilisation": share,
                    "arrivals_hz": share * base_hz,
                    "throughput_hz": float(np.median([hz for _, hz in runs])),
                    "full_hz": float(np.median(full[name])),
                    "p50_us": float(np.median([np.median(times) for times, _ in runs])),
                    "p99_us": float(np.median(p99)),
                    "p99_spread_us": (max(p99) - min(p99)) / 2,
                    "requests": requests * ROUNDS,
                }
            )
    return rows


def main() -> None:
    """Measure one artifact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    with contenders(asked.artifact) as models:
        compiled = next(iter(models.values())).compiled
        (_, classes) = compiled.outputs[0].shape
        samples = read_samples(asked.data, compiled.inputs, classes)
        rows = rows_of(models, samples, asked.requests, asked.seed)
    for row in rows:
        print(
            f"{row['utilisation']:.1f} {row['arrangement']:18} {row['throughput_hz']:9.1f}/s of at "
            f"most {row['full_hz']:9.1f}/s   p50 {row['p50_us']:9.1f} µs   p99 {row['p99_us']:9.1f} µs"
        )
    save(asked.json, [{**row, "machine": this_machine().fingerprint} for row in rows])


if __name__ == "__main__":
    main()
