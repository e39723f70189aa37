"""Times of sub-graphs alone, as priced within a plan, and traced in one; and plans made with both prices.

``python bench/in_plan.py light:squeezenet zoo:resnet34 … --json bench/results/in_plan.json``. Every sub-graph of the
cold f32 plan is measured alone; the plan is built, and traced in turns with runs as a whole. Then it races with the
plan that takes the times alone for those in a plan.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from script import arguments_of, run

from layoutsel.benchmarking.cases import case_name
from layoutsel.compile.build_best import finish
from layoutsel.compile.contenders import signatures
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.measuring import cost_model, measure_candidates, worker_of
from layoutsel.compile.offers import Offers
from layoutsel.compile.pricing import Pricing
from layoutsel.compile.session import Session
from layoutsel.core.workload import Cost
from layoutsel.cost.model import Question
from layoutsel.runtime.observe import observe
from layoutsel.runtime.race import race
from layoutsel.runtime.samples import random_inputs

SECONDS = 3.0
"""Time budget of tracing."""
ROUNDS = 3
"""Repetitions of the tracing; the fastest counts."""


class Alone(Pricing):
    """Prices by the times of candidates alone."""

    def in_plan_us(self, _question: Question) -> float:
        """Count nothing for neighbours."""
        return 0.0


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """Sums over the sub-graphs of one network, microseconds, and errors of the prices within the plan."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session.open(model, threads=threads, cache=Path(folder) / "cache.sqlite")
        offers = Offers.of(session)
        problem = priced_problem(offers)
        plan = best_plan(session, problem)
        with cost_model(offers, "learned") as costs:
            other_problem = Alone(offers, costs).problem()
        chosen = [(subgraph, plan.decisions[subgraph.id]) for subgraph in session.graph.subgraphs]
        with cost_model(offers, "learned") as costs, worker_of(session) as worker:
            measure_candidates(offers, costs, [(s.id, decision) for s, decision in chosen], worker)
            pricing = Pricing(offers, costs)
            priced = pricing.candidates(chosen)
            alone = costs.subgraphs([Question(offers.asked(s, d), d) for s, d in chosen])
        built = finish(session, plan, problem, verify=False, verify_speed=False)
        inputs = random_inputs(signatures(session.model.inputs))
        ran = min(
            (observe(built, inputs, SECONDS) for _ in range(ROUNDS)), key=lambda r: r.whole_us
        )
        other_plan = best_plan(session, other_problem)
        other = finish(session, other_plan, other_problem, verify=False, verify_speed=False)
        raced = race(
            {"plan": built.timed_call(inputs), "other": other.timed_call(inputs)}, rounds=25
        )
    times = np.array(
        [
            (cost.us, price.us, ran.subgraphs[subgraph.id].us)
            for (subgraph, _), cost, price in zip(chosen, alone, priced, strict=True)
            if subgraph.id in ran.subgraphs
            and subgraph.id not in ran.merged
            and isinstance(cost, Cost)
            and cost.source == "measured"
        ]
    )
    yield {
        "model": case_name(model),
        "subgraphs": len(times),
        "alone_us": round(times[:, 0].sum(), 1),
        "priced_us": round(times[:, 1].sum(), 1),
        "traced_us": round(times[:, 2].sum(), 1),
        "whole_us": round(ran.whole_us, 1),
        "alone_error": _error(times[:, 0], times[:, 2]),
        "priced_error": _error(times[:, 1], times[:, 2]),
        "changed": sum(plan.decisions[id_] != other_plan.decisions[id_] for id_ in plan.decisions),
        "plan_us": round(raced["plan"].median_us, 1),
        "plan_spread_us": round(raced["plan"].spread_us, 1),
        "plan_by_times_alone_us": round(raced["other"].median_us, 1),
        "plan_by_times_alone_spread_us": round(raced["other"].spread_us, 1),
    }


def _error(predicted: np.ndarray, traced: np.ndarray) -> float:
    """Median of the relative errors."""
    return round(float(np.median(np.abs(predicted / traced - 1))), 4)


if __name__ == "__main__":
    run(rows, __doc__, arguments_of(__doc__).parse_args())
