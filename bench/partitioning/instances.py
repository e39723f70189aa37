"""Tarnawski's inference instances in their own cost definition: the best strategy, pipelines, bounds.

``python -m bench.partitioning.instances --data DIR --json FILE`` plans their 8 instances for throughput, and the 8 for
latency as instances with narrow memories. Their definition has accelerators and CPUs, loads of computing plus every
tensor in and out once, memories of accelerators, and colours. A pipeline has one part per machine. Whole replicas share
the requests in proportion to their speed, if the network fits; no strategy is faster than the work divided over all
machines, so their bound holds for every strategy.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.partitioning.graphs import US_PER_MS, tarnawski
from layoutsel.benchmarking.compare import save
from layoutsel.planning.contiguous import best_contiguous
from layoutsel.planning.contraction import contracted
from layoutsel.planning.division import DivisionProblem, period_us
from layoutsel.planning.division_search import improved
from layoutsel.planning.part_bound import best_part_bound

_LIMIT_S = 60.0
"""Time limit of an instance, seconds."""


def instances(data: Path) -> Iterator[tuple[str, Path]]:
    """Names and files of the 16 instances."""
    for kind in ("throughput", "latency"):
        for file in sorted((data / f"tarnawski/{kind}-inputs").glob("*/*inference.json")):
            yield f"{kind}/{file.parent.stem}/{file.stem}", file


def row(name: str, file: Path, limit_s: float) -> dict[str, Any]:
    """Plans of one instance with their bounds, milliseconds."""
    started = time.monotonic()
    # CPUs of the instances for latency work in parallel on one request; here, only accelerators do.
    network = tarnawski(file, cpus=0 if name.startswith("latency") else None)
    problem, _ = contracted(network)
    contiguous = best_contiguous(problem, deadline=started + 0.3 * limit_s)
    assert contiguous.division is not None, f"{name}: no contiguous division fits"
    division = improved(problem, contiguous.division, deadline=started + 0.55 * limit_s)
    period = period_us(problem, division)
    bound_contiguous = contiguous.period_us
    if not (contiguous.exact and contiguous.complete):
        bound_contiguous = best_part_bound(
            problem,
            contiguous=True,
            most_us=contiguous.period_us,
            deadline=started + 0.75 * limit_s,
        )
    bound = best_part_bound(
        problem, contiguous=False, most_us=period, deadline=started + 0.95 * limit_s
    )
    every = least_any(network)
    replicas = replicated(network)
    best = min(period, replicas)
    return {
        "instance": name,
        "subgraphs": network.size,
        "merged": problem.size,
        "machines": list(network.counts),
        "contiguous_ms": contiguous.period_us / US_PER_MS,
        "contiguous_gap": 1.0 - bound_contiguous / contiguous.period_us,
        "pipeline_ms": period / US_PER_MS,
        "pipeline_gap": 1.0 - max(bound, every) / period,
        "replicas_ms": replicas / US_PER_MS if np.isfinite(replicas) else None,
        "best_ms": best / US_PER_MS,
        "bound_ms": every / US_PER_MS,
        "gap": 1.0 - every / best,
        "time_s": time.monotonic() - started,
    }


def replicated(network: DivisionProblem) -> float:
    """Time between two results if each machine runs the whole network; infinite if none can."""
    works = network.compute_us.sum(axis=0)
    fits = [network.bytes.sum() <= limit for limit in network.limits]
    rate = sum(n / us for n, us, fit in zip(network.counts, works, fits, strict=True) if fit)
    return float(1.0 / rate) if rate else float(np.inf)


def least_any(network: DivisionProblem) -> float:
    """Bound on every strategy: machines share all work, each sub-graph where it is relatively fast.

    With prices of the classes, the priced work of a request is at least that of the cheapest class
    of each sub-graph, and a period pays for all machines.
    """
    best = 0.0
    counts = np.array(network.counts, dtype=float)
    for share in np.linspace(0.0, 1.0, 1001):
        prices = np.array([1.0 - share, share]) if len(counts) == 2 else np.ones(1)
        if counts @ prices > 0:
            work = (network.compute_us * prices).min(axis=1).sum()
            best = max(best, float(work / (counts @ prices)))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("LAYOUTSEL_PARTITIONING"))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--limit-s", type=float, default=_LIMIT_S)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("no data: give --data, or set LAYOUTSEL_PARTITIONING")
    rows = json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
    known = {one["instance"] for one in rows}
    for name, file in instances(arguments.data):
        # An interrupted run goes on where it stopped.
        if arguments.only in name and name not in known:
            rows.append(row(name, file, arguments.limit_s))
            print(json.dumps(rows[-1]), flush=True)
            save(arguments.json, rows)


if __name__ == "__main__":
    main()
