"""Predicted against measured time of whole plans, at the machine's best and with its present state taken out.

``python bench/whole_plans.py light:squeezenet arch:mobilenet_v2 … --json bench/results/whole_plans.json``; on a machine
that the cost model has not seen, `layoutsel calibrate` first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from script import arguments_of, run

from layoutsel.benchmarking.cases import case_name
from layoutsel.compile.build_best import finish
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.planning.plan import Plan


def rows(
    model: str, threads: int, cost: str = "auto", cost_model: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Prediction, uncertainty and measured time of the f32 plan that ``compile`` makes."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session.open(
            model, threads=threads, cache=Path(folder) / "cache.sqlite", cost_model=cost_model
        )
        problem = priced_problem(Offers.of(session), cost)
        plan = best_plan(session, problem)
        built = finish(session, plan, problem)
    raced = Plan.read(built.plan, file="the built plan").measured["plan"]
    now = plan.now
    now_us = now.us if now else plan.cost_us
    yield {
        "model": case_name(model),
        "cost": cost,
        "measured_subgraphs": sum(one.source == "measured" for one in plan.subgraphs),
        "subgraphs": len(plan.subgraphs),
        "predicted_us": round(plan.cost_us, 1),
        "spread_us": round(plan.spread_us, 1),
        "now_us": round(now_us, 1),
        "compute": round(now.compute, 3) if now else None,
        "memory": round(now.memory, 3) if now else None,
        "measured_us": round(raced.median_us, 1),
        "measured_spread_us": round(raced.spread_us, 1),
        "measured_to_predicted": round(raced.median_us / plan.cost_us, 4),
        "measured_to_now": round(raced.median_us / now_us, 4),
    }


if __name__ == "__main__":
    parser = arguments_of(__doc__)
    parser.add_argument("--cost", default="auto")
    parser.add_argument("--cost-model", type=Path)
    arguments = parser.parse_args()
    run(partial(rows, cost=arguments.cost, cost_model=arguments.cost_model), __doc__, arguments)
