"""Contiguous pipelines against their bounds and replication, for 2 to 64 equal machines.

``python -m bench.partitioning.bounds --data DIR --json FILE`` takes PipeDream's profiles, Tarnawski's inference
graphs on accelerators alone, and our networks. Each pipeline has one part per machine and no limits of memory. The
published figure to compare with is Archer's ratio of bound to best, 0.9452 for 16 machines, on other networks (ICML
2024). Replication is the same without parts: it always attains the bound on every strategy, the work divided by the
number of machines.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.partitioning.graphs import pipedream, tarnawski, with_machines
from bench.partitioning.networks import NETWORKS, planned
from layoutsel.benchmarking.compare import save
from layoutsel.planning.contiguous import best_contiguous
from layoutsel.planning.contraction import contracted
from layoutsel.planning.division import DivisionProblem
from layoutsel.planning.part_bound import best_part_bound

COUNTS = (16, 2, 4, 8, 32, 64)
"""Numbers of machines; the one with a published figure first."""


def networks(data: Path) -> Iterator[tuple[str, Callable[[], DivisionProblem]]]:
    """Names of all networks with functions that load them."""
    for file in sorted((data / "pipedream").glob("*.txt")):
        if file.stem != "LICENSE":
            yield f"pipedream/{file.stem}", lambda file=file: pipedream(file)
    for file in sorted((data / "tarnawski/throughput-inputs").glob("*/*inference.json")):
        name = f"tarnawski/{file.parent.stem}/{file.stem}"
        yield name, lambda file=file: tarnawski(file)
    for name in NETWORKS:
        yield name, lambda name=name: planned(name)


def row(name: str, network: DivisionProblem, machines: int, limit_s: float) -> dict[str, Any]:
    """Best pipeline and its bound."""
    started = time.monotonic()
    problem, _ = contracted(with_machines(network, machines))
    found = best_contiguous(problem, deadline=started + 0.5 * limit_s)
    bound = found.period_us
    if not (found.exact and found.complete):
        left = started + limit_s - time.monotonic()
        bound = best_part_bound(
            problem,
            contiguous=True,
            most_us=found.period_us,
            deadline=time.monotonic() + max(left, 1.0),
        )
    work_us = float(network.compute_us[:, 0].sum())
    return {
        "network": name,
        "machines": machines,
        "subgraphs": network.size,
        "period_us": found.period_us,
        "bound_us": bound,
        "bound_over_best": bound / found.period_us,
        "work_over_machines_us": work_us / machines,
        "replication_over_pipeline": found.period_us / (work_us / machines),
        "is_exact": found.exact and found.complete,
        "time_s": time.monotonic() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("LAYOUTSEL_PARTITIONING"))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--limit-s", type=float, default=30.0)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("no data: give --data, or set LAYOUTSEL_PARTITIONING")
    rows = json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
    known = {(one["network"], one["machines"]) for one in rows}
    loaders = dict(networks(arguments.data))
    loaded: dict[str, DivisionProblem] = {}
    for machines in COUNTS:
        for name, load in loaders.items():
            if (name, machines) in known:
                continue  # an interrupted run goes on where it stopped
            if name not in loaded:
                loaded[name] = load()
            found = row(name, loaded[name], machines, arguments.limit_s)
            rows.append(found)
            print(*found.values(), sep="\t", flush=True)
            save(arguments.json, rows)
        these = [one for one in rows if one["machines"] == machines]
        mean = np.exp(np.mean([np.log(one["bound_over_best"]) for one in these]))
        worst = min(one["bound_over_best"] for one in these)
        print(f"{machines} machines: geometric mean {mean:.4f} of {len(these)}, least {worst:.4f}")


if __name__ == "__main__":
    main()
