"""Predicted against measured time of whole plans, at the machine's best and with its present state taken out.

``python bench/whole_plans.py light:squeezenet arch:mobilenet_v2 … --json bench/results/whole_plans.json``; on a machine
that the cost model has not seen, `layoutsel calibrate` first. The state is probed in turns with the runs.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from script import arguments_of, run

from layoutsel.benchmarking.cases import case_name
from layoutsel.compile.build_best import finish
from layoutsel.compile.cost_sources import CostSources
from layoutsel.compile.make_plan import best_plan, priced_problem, slowed_us
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.cost.state import probed_state
from layoutsel.planning.plan import Plan
from layoutsel.runtime.race import race
from layoutsel.runtime.samples import random_inputs

TURNS = 7
"""Number of probes, each followed by runs of the plan."""


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
    kept = Plan.read(built.plan, file="the built plan")
    call = built.timed_call(random_inputs(built.inputs))
    peaks = CostSources(session).roofline.peaks
    turns = []
    for _ in range(TURNS):
        state = probed_state(peaks)
        measured_us = race({"plan": call}, rounds=5)["plan"].median_us
        turns.append((measured_us, slowed_us(session, kept, state), state))
    measured = [us for us, *_ in turns]
    ratios = sorted(us / now_us for us, now_us, _ in turns)
    yield {
        "model": case_name(model),
        "cost": cost,
        "measured_subgraphs": sum(one.source == "measured" for one in plan.subgraphs),
        "subgraphs": len(plan.subgraphs),
        "predicted_us": round(kept.cost_us, 1),
        "spread_us": round(kept.spread_us, 1),
        "compute": [round(state.compute, 3) for *_, state in turns],
        "memory": [round(state.memory, 3) for *_, state in turns],
        "measured_us": [round(us, 1) for us in measured],
        "measured_to_predicted": round(statistics.median(measured) / kept.cost_us, 4),
        "measured_to_now": round(statistics.median(ratios), 4),
        "least_to_now": round(ratios[0], 4),
        "most_to_now": round(ratios[-1], 4),
    }


if __name__ == "__main__":
    parser = arguments_of(__doc__)
    parser.add_argument("--cost", default="auto")
    parser.add_argument("--cost-model", type=Path)
    arguments = parser.parse_args()
    run(partial(rows, cost=arguments.cost, cost_model=arguments.cost_model), __doc__, arguments)
