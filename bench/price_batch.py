"""Candidates that the learned cost model prices in a second, asked all at once and one by one.

Run ``python bench/price_batch.py``; it writes ``bench/results/price_batch.json``. Both ways are timed in turn, in one
process with one thread. Every candidate is a sub-graph of its own in the case ``distinct``; in ``shared`` ten candidates
have one sub-graph, as in a network. Seconds of the CPU are given beside those of the clock: on a busy machine, which
``load`` tells of, only they say what an idle one would take.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from layoutsel.benchmarking.compare import save
from layoutsel.cost.archive import read_archive
from layoutsel.cost.learned import LearnedCost, LearnedModel
from layoutsel.cost.model import Question
from layoutsel.cost.samples import Sample

DATA = Path(__file__).parents[1] / "data" / "measurements.jsonl.xz"
RESULT = Path(__file__).parent / "results" / "price_batch.json"
COUNT = 10_000
ALONE = 300
"""Candidates of the slow way."""


def questions(samples: list[Sample], distinct: bool) -> list[Question]:
    """Candidates that were measured once, with the facts that units state about their code."""
    rng = np.random.default_rng(0)
    chosen = [samples[n] for n in rng.choice(len(samples), COUNT)]
    if distinct:
        return [
            Question(replace(one.workload, key=str(n)), one.decision)
            for n, one in enumerate(chosen)
        ]
    return [Question(one.workload, one.decision) for one in chosen for _ in range(10)][:COUNT]


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one run by the clock, and of the CPU."""
    start, start_cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - start_cpu


def per_second(cost: LearnedCost, asked: list[Question], repeats: int) -> dict[str, float]:
    """Candidates per second by both ways, medians, with the spread of the batch's time."""
    cost.subgraphs(asked[:10])  # loads the boosters
    batch, alone = [], []
    for _ in range(repeats):
        batch.append(timed(lambda: cost.subgraphs(asked)))
        alone.append(timed(lambda: [cost.subgraph(q.workload, q.decision) for q in asked[:ALONE]]))
    low, median, high = np.percentile([clock for clock, _ in batch], [25, 50, 75])
    return {
        "batch_per_s": round(COUNT / float(median)),
        "batch_s": round(float(median), 4),
        "batch_spread_s": round(float(high - low) / 2, 4),
        "batch_cpu_s": round(float(np.median([cpu for _, cpu in batch])), 4),
        "alone_per_s": round(ALONE / float(np.median([clock for clock, _ in alone]))),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    samples = list(read_archive(DATA)[0].samples)
    cost = LearnedCost(LearnedModel.load(), samples[0].provenance.profile)
    cases = {
        name: per_second(cost, questions(samples, name == "distinct"), repeats)
        for name in ("distinct", "shared")
    }
    for name, found in cases.items():
        print(
            f"{name:9} {found['batch_per_s']:>8,} candidates/s at once ({found['batch_cpu_s']:g} s of CPU for "
            f"{COUNT:,}), {found['alone_per_s']:,} one by one"
        )
    about = {"candidates": COUNT, "repeats": repeats}
    save(RESULT, [{"case": name, **about, **found} for name, found in cases.items()])


if __name__ == "__main__":
    main()
