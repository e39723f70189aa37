"""What does the learned cost model lose? Plans by every cost model, each from nothing, built and timed in turns.

The learned one is trained for the purpose on the data set without the network's sub-graphs, shapes and boundaries.

``python bench/costs.py light:resnet50 … --json bench/results/costs.json``
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from script import run

from layoutsel.api import finish
from layoutsel.benchmarking.cases import case_name
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.cost.datasets import data_files
from layoutsel.cost.logs import read_logs
from layoutsel.cost.samples import Dataset
from layoutsel.cost.training import train
from layoutsel.evaluation.evaluate import split, unit_data
from layoutsel.runtime.race import race
from layoutsel.runtime.samples import random_inputs

HYBRID_SHARE = 0.1
"""Of the time that measuring everything took."""


def train_without(name: str, folder: Path) -> Path:
    """A cost model that has seen nothing of the network `name`, in `folder`."""
    dataset, _ = read_logs(data_files(None))
    recorded = next(one for one in dataset.models if one.name == name)
    kept = []
    for data in unit_data(dataset).values():
        _, learned = split(data, recorded)
        kept += [sample for sample, keep in zip(data.samples, learned, strict=True) if keep]
    shapes = {tensor.shape for tensor in recorded.tensors}
    boundaries = tuple(one for one in dataset.boundaries if one.tensor.shape not in shapes)
    train(Dataset(samples=tuple(kept), boundaries=boundaries)).save(folder)
    return folder


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """Time to plan, measurements made, and predicted and measured time of the plan by each cost model."""
    with tempfile.TemporaryDirectory() as trained:
        yield from _raced(model, threads, train_without(case_name(model), Path(trained)))


def _raced(model: str, threads: int, cost_model: Path) -> Iterator[dict[str, Any]]:
    found, compiled = {}, {}
    everything_s = 0.0
    for cost in ("measured", "learned", "hybrid", "roofline"):
        with tempfile.TemporaryDirectory() as folder:
            made: list[object] = []
            session = Session.open(
                model,
                threads=threads,
                cache=Path(folder) / "cache.sqlite",
                progress=made.append,
                cost_model=cost_model,
            )
            start = time.perf_counter()
            problem = priced_problem(
                Offers.of(session), cost, measure_budget_s=HYBRID_SHARE * everything_s
            )
            plan = best_plan(session, problem)
            planning_s = time.perf_counter() - start
            everything_s = everything_s or planning_s
            compiled[cost] = finish(session, plan, problem)
            found[cost] = {
                "model": case_name(model),
                "cost": cost,
                "planning_s": round(planning_s, 2),
                "measurements": len(made),
                "predicted_us": round(plan.cost_us, 1),
            }
    inputs = random_inputs(session.model.inputs)
    calls = {cost: one.timed_call(inputs) for cost, one in compiled.items()}
    times = race(calls, rounds=25, turn_s=0.1)
    for cost, row in found.items():
        yield {
            **row,
            "median_us": round(times[cost].median_us, 1),
            "spread_us": round(times[cost].spread_us, 1),
            "runs": times[cost].runs,
            "times_measured": round(times[cost].median_us / times["measured"].median_us, 4),
        }


if __name__ == "__main__":
    run(rows, __doc__)
