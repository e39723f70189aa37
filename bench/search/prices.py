"""Prices of search spaces on this machine: processor time of pricing, and the slack of whole networks.

``PYTHONPATH=bench python -m search.prices --json bench/results/search_prices.json``. The slack is the share of the sum of
its parts' prices that a plan of the whole network saves, because it chooses layouts together and fuses more.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.benchmarking.compare import save
from layoutsel.cluster.classes import MachineClass
from layoutsel.compile.options import Options
from layoutsel.search.default_spaces import CHAINS
from layoutsel.search.parts import parts_of, signatures_of
from layoutsel.search.prices import price_parts
from layoutsel.search.slack import slack_of
from layoutsel.search.space import Space

NETWORKS = 20
"""Number of random networks of each space."""


def row(name: str, space: Space, threads: int) -> dict[str, Any]:
    """Price one space, and plan random networks of it."""
    here = MachineClass(name="here", machine=None, threads=threads, units=(), nodes=("here",))
    options = Options(cost="learned")
    signatures = signatures_of(space)
    begin = time.process_time()
    table = price_parts(signatures, [here], options)
    cpu_s = time.process_time() - begin
    random = np.random.default_rng(0)
    found = [
        slack_of(parts_of(space, space.draw(random)), table, here, options) for _ in range(NETWORKS)
    ]
    gains = np.array([one.gain for one in found])
    return {
        "space": name,
        "networks": space.size,
        "threads": threads,
        "parts": len(signatures),
        "pricing_cpu_s": round(cpu_s, 2),
        "parts_per_cpu_s": round(len(signatures) / cpu_s, 1),
        "sum_of_parts_us": round(float(np.mean([one.parts_us for one in found])), 1),
        "plan_us": round(float(np.mean([one.plan_us for one in found])), 1),
        "slack_median": round(float(np.median(gains)), 4),
        "slack_least": round(float(gains.min()), 4),
        "slack_most": round(float(gains.max()), 4),
        "rank_correlation": round(_rank_correlation([(s.parts_us, s.plan_us) for s in found]), 4),
    }


def _rank_correlation(pairs: list[tuple[float, float]]) -> float:
    """Kendall's tau of sums of prices and times of plans."""
    from scipy.stats import kendalltau

    return float(kendalltau(*zip(*pairs, strict=True)).statistic)


def main() -> None:
    """Print and save the rows of all spaces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for name, space in CHAINS.items():
        for threads in (1, 2):
            rows.append(row(name, space, threads))
            print(*rows[-1].values(), sep="\t", flush=True)
            save(arguments.json, rows)


if __name__ == "__main__":
    main()
