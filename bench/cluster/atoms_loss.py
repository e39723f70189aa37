"""What does a plan lose by running as atoms? The fused whole against the same plan in atoms, in one process, in turns.

``python bench/cluster/atoms_loss.py --json bench/results/atoms_loss.json`` takes about five minutes. Both models share
the plan and the threads. A ratio is the time in atoms over the time of the whole: the median over rounds, each of
which times both, one after the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import numpy as np

from layoutsel.api import build_as_planned
from layoutsel.benchmarking.compare import save
from layoutsel.cluster.atoms import MOST_ATOMS, plan_in_atoms
from layoutsel.compile.generic import offered
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.session import Session
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs

NETWORKS = (
    "light:resnet50",
    "arch:mobilenet_v2",
    "arch:vit_small_16",
    "light:inception_v1",
    "arch:unet",
)
ROUNDS, ROUND_S = 41, 0.25


def built(model: str, threads: int, most: int) -> tuple[CompiledModel, CompiledModel]:
    """Build a plan as a whole and in atoms."""
    session = Session.open(model, threads=threads, calibrate=False)
    plan = best_plan(session, priced_problem(offered(session), "learned"))
    staged = plan_in_atoms(plan, session.graph, most=most)
    return tuple(build_as_planned(session, one, verify=False) for one in (plan, staged))  # type: ignore[return-value]


def rounds(calls: Sequence[Callable[[], Any]]) -> list[list[float]]:
    """Times of each call in rounds, microseconds; the order alternates."""
    for call in calls:
        call()
    start = perf_counter()
    calls[0]()
    runs = max(1, round(ROUND_S / len(calls) / (perf_counter() - start)))
    found = []
    for number in range(ROUNDS + 1):
        times = [0.0] * len(calls)
        for index in sorted(range(len(calls)), reverse=bool(number % 2)):
            each = []
            for _ in range(runs):
                start = perf_counter()
                calls[index]()
                each.append(1e6 * (perf_counter() - start))
            times[index] = median(each)
        found.append(times)
    return found[1:]


def row(model: str, threads: int, most: int) -> dict[str, Any]:
    """Compare both forms of one network."""
    whole, atoms = built(model, threads, most)
    inputs = random_inputs(whole.inputs)
    equal = [
        np.array_equal(one, other)
        for one, other in zip(whole.run_all(inputs), atoms.run_all(inputs), strict=True)
    ]
    found = rounds([whole.timed_call(inputs), atoms.timed_call(inputs)])
    low, middle, high = quantiles([after / before for before, after in found], n=4)
    return {
        "model": model,
        "threads": threads,
        "atoms": len(atoms.stages),
        "subgraphs": len(whole.plan["subgraphs"]),
        "ratio": round(middle, 4),
        "ratio_quartiles": [round(low, 4), round(high, 4)],
        "whole_us": round(median(one for one, _ in found), 1),
        "bit_equal": all(equal),
    }


def main() -> None:
    """Compare all networks, and save what is there after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=NETWORKS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, default=MOST_ATOMS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = []
    for model in arguments.models:
        found.append(row(model, arguments.threads, arguments.most))
        print(*found[-1].values(), sep="\t", flush=True)
        if arguments.json:
            save(arguments.json, found)


if __name__ == "__main__":
    main()
