"""A multi-exit network under random arrivals: one by one and in batches, against its trunk alone.

``PYTHONPATH=bench python -m exits.serving net.so test.npz --name mnist5k --json bench/results/exits_serving.json``: requests
arrive by a Poisson process at shares of the rate that the trunk alone sustains, and at shares of the rate that the exits
sustain one by one. All contenders get the same arrivals, one after the other in each round: calls without a server on the
thread that they arrive on, a server one by one, a server in batches, and one with a copy of the network for each core, if
it is planned for one thread (``plan --threads 1``). Latencies count from the arrival, so that a late start is part of them.
At rates that a contender keeps up with, its throughput is that of the arrivals; the largest one is measured with a full
queue, with the processor time per request. The file keeps its rows of networks with other names.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layoutsel import documents
from layoutsel.benchmarking.compare import save
from layoutsel.device.machine import this_machine
from layoutsel.device.threads import available_cores
from layoutsel.exits.comparing import ALONE, CHOSEN, contenders
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.samples import Samples, read_samples
from layoutsel.exits.server import QUEUE, ExitServer

SHARES = (0.3, 0.5, 0.7, 0.9)
"""Arrivals as shares of a rate that is sustained."""
ROUNDS = 3
LIMIT_S = 60.0


class Contender(NamedTuple):
    """An arrangement, the largest number of requests at once, 0 for calls without a server, and the copies."""

    name: str
    model: ExitModel
    batch: int
    copies: int = 1


class Full(NamedTuple):
    """Figures with requests that never wait for their arrival."""

    hz: float
    processor_us: float


def contending(models: Mapping[str, ExitModel]) -> Iterator[Contender]:
    """Yield every arrangement without a server, one by one, and in batches if it was compiled for them."""
    cores = len(available_cores())
    for name, model in models.items():
        yield Contender(f"{name}, calls", model, 0)
        yield Contender(name, model, 1)
        if cores > 1 and model.compiled.threads == model.places == 1:  # one core each
            yield Contender(f"{name}, {cores} copies", model, 1, cores)
        batches = model.batches(model.arrangement) if isinstance(model, ExitModel) else None
        if batches is not None:
            yield Contender(f"{name}, batches", model, batches.most)


def full(one: Contender, samples: Samples, requests: int) -> Full:
    """Answers of calls in a row, or while the queue of a server is never empty."""
    count = len(samples.inputs)
    if not one.batch:
        start_s, processor_s = time.perf_counter(), time.process_time()
        for number in range(requests):
            one.model(*samples.inputs[number % count])
        return _full(start_s, processor_s, requests)
    queue = max(QUEUE, 4 * one.batch)
    with ExitServer(one.model, queue=queue, batch=one.batch, copies=one.copies) as server:
        start_s, processor_s = time.perf_counter(), time.process_time()
        for _ in server.stream(samples.inputs[n % count] for n in range(requests)):
            pass
        return _full(start_s, processor_s, requests)


def _full(start_s: float, processor_s: float, requests: int) -> Full:
    return Full(
        requests / (time.perf_counter() - start_s),
        1e6 * (time.process_time() - processor_s) / requests,
    )


def served(one: Contender, samples: Samples, gaps_s: np.ndarray) -> tuple[np.ndarray, float]:
    """Latencies of requests that arrive after these gaps, microseconds, and answers per second."""
    ends = np.zeros(len(gaps_s))
    count = len(samples.inputs)
    if not one.batch:
        begin = time.perf_counter() + 0.01
        arrivals = begin + np.cumsum(gaps_s)
        for number, arrival in enumerate(arrivals.tolist()):
            _wait_for(arrival)
            one.model(*samples.inputs[number % count])
            ends[number] = time.perf_counter()
        return 1e6 * (ends - arrivals), len(ends) / (ends[-1] - begin)
    with ExitServer(one.model, queue=len(gaps_s), batch=one.batch, copies=one.copies) as server:
        begin = time.perf_counter() + 0.01
        arrivals = begin + np.cumsum(gaps_s)
        futures = []
        for number, arrival in enumerate(arrivals.tolist()):
            _wait_for(arrival)
            future = server.submit(samples.inputs[number % count])
            future.add_done_callback(
                lambda _, number=number: ends.__setitem__(number, time.perf_counter())
            )
            futures.append(future)
        for future in futures:
            future.result(LIMIT_S)
    return 1e6 * (ends - arrivals), len(ends) / (ends.max() - begin)


def _wait_for(arrival_s: float) -> None:
    if (left_s := arrival_s - time.perf_counter()) > 0:
        time.sleep(left_s)


def rows_of(
    models: Mapping[str, ExitModel], samples: Samples, requests: int, seed: int
) -> list[dict[str, Any]]:
    """Figures of all contenders at all rates; each round has the same arrivals for all of them."""
    generator = np.random.default_rng(seed)
    every = list(contending(models))
    full_of: dict[str, list[Full]] = {one.name: [] for one in every}
    for _ in range(ROUNDS):
        for one in every:
            full_of[one.name].append(full(one, samples, requests))
    medians = {name: Full(*np.median(found, axis=0).tolist()) for name, found in full_of.items()}
    rows = []
    for base in (name for name in (ALONE, CHOSEN) if name in medians):
        # A rate that the exits sustain is far beyond that of the others.
        able = [one for one in every if base == ALONE or one.model is models[CHOSEN]]
        for share in SHARES:
            rate_hz = share * medians[base].hz
            found: dict[str, list[tuple[np.ndarray, float]]] = {one.name: [] for one in able}
            for _ in range(ROUNDS):
                gaps_s = generator.exponential(1 / rate_hz, requests)
                for one in able:
                    found[one.name].append(served(one, samples, gaps_s))
            for one in able:
                runs = found[one.name]
                p99 = [float(np.percentile(times, 99)) for times, _ in runs]
                rows.append(
                    {
                        "arrangement": one.name,
                        "batch": one.batch,
                        "copies": one.copies,
                        "utilisation": share,
                        "utilisation_of": base,
                        "arrivals_hz": rate_hz,
                        "throughput_hz": float(np.median([hz for _, hz in runs])),
                        "full_hz": medians[one.name].hz,
                        "full_processor_us": medians[one.name].processor_us,
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
    parser.add_argument("--name", required=True, help="name of the network in the file")
    parser.add_argument("--requests", type=int, default=2000)
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
            f"{row['utilisation']:.1f} of {row['utilisation_of']:12} {row['arrangement']:28} "
            f"{row['throughput_hz']:9.1f}/s of {row['full_hz']:9.1f}/s, processor {row['full_processor_us']:7.1f} µs   "
            f"p50 {row['p50_us']:9.1f} µs   p99 {row['p99_us']:9.1f} µs"
        )
    before = documents.load_json(asked.json)["rows"] if asked.json.exists() else []
    kept = [row for row in before if row.get("name", asked.name) != asked.name]
    about = {"name": asked.name, "machine": this_machine().fingerprint}
    save(asked.json, [*kept, *({**about, **row} for row in rows)])


if __name__ == "__main__":
    main()
