"""What tuning records gain: the sub-graphs that tuned schedules win, and whole models with and without records.

``layoutsel tune light:resnet50 … --logs LOGS``, then ``python bench/tuned.py light:resnet50 … --logs LOGS --json FILE``.
Every candidate of every sub-graph is measured alone. Then the plan of all candidates races with that of all but the
tuned ones.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from script import arguments_of, run

from layoutsel.benchmarking.cases import case_name
from layoutsel.compile.build_best import finish
from layoutsel.compile.contenders import signatures
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.runtime.race import race
from layoutsel.runtime.samples import random_inputs
from layoutsel.tuning.lines import RECORDS
from tvm_passes.algorithms.tuned import ALGORITHM

ROUNDS = 25
"""Rounds of the race."""


def rows(
    model: str, threads: int, *, logs: Path, units: list[str] | None
) -> Iterator[dict[str, Any]]:
    """Sub-graphs won by tuned schedules, and times of both plans, microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache.sqlite"
        session = Session.open(model, threads=threads, cache=cache, logs=logs, units=units)
        problem = priced_problem(Offers.of(session), "measured")
        others = problem.restrict(lambda _node, o: o.decision.algorithm != ALGORITHM.name)
        plans = {"with": best_plan(session, problem), "without": best_plan(session, others)}
        built = {
            name: finish(session, plan, problem, verify=True, verify_speed=False)
            for name, plan in plans.items()
        }
        inputs = random_inputs(signatures(session.model.inputs))
        raced = race({name: one.timed_call(inputs) for name, one in built.items()}, rounds=ROUNDS)
    best = {
        node.id: min(node.options, key=lambda o: o.cost_us).decision.algorithm
        for node in problem.nodes
    }
    tunable = [
        node.id
        for node in problem.nodes
        if any(o.decision.algorithm == ALGORITHM.name for o in node.options)
    ]
    chosen = plans["with"].decisions
    yield {
        "model": case_name(model),
        "trials": sum(1 for _ in (logs / RECORDS).open(encoding="utf-8")),
        "subgraphs": len(best),
        "with_records": len(tunable),
        "won_alone": sum(best[id_] == ALGORITHM.name for id_ in tunable),
        "won_in_plan": sum(chosen[id_].algorithm == ALGORITHM.name for id_ in tunable),
        "measured_sum_ratio": round(plans["without"].cost_us / plans["with"].cost_us, 4),
        "with_us": round(raced["with"].median_us, 1),
        "with_spread_us": round(raced["with"].spread_us, 1),
        "without_us": round(raced["without"].median_us, 1),
        "without_spread_us": round(raced["without"].spread_us, 1),
        "ratio": round(raced["without"].median_us / raced["with"].median_us, 4),
    }


if __name__ == "__main__":
    parser = arguments_of(__doc__)
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--units", type=json.loads)
    asked = parser.parse_args()
    run(partial(rows, logs=asked.logs, units=asked.units), __doc__, asked)
