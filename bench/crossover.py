"""From which batch on does a GPU pay? Plans for a machine that is only modelled, by the planner that plans for real ones.

All costs are rooflines of the machine's file, in ``bench/machines``: figures of data sheets, and efficiencies that nobody
measured (:mod:`layoutsel.cost.roofline`). So this shows what the planner makes of costs, and no GPU's true times.

``python bench/crossover.py light:resnet50 … --json bench/results/crossover.json --svg bench/results/crossover.svg``
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curves import Curve, Panel, draw

from layoutsel.benchmarking.cases import case_name
from layoutsel.benchmarking.compare import save
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.cost.place import HOST
from layoutsel.model.import_load import load_model
from layoutsel.planning.alternatives import best_with
from layoutsel.planning.problem import PlanningProblem
from layoutsel.zoo.light_models import set_batch
from tvm_passes.decision import Decision, SubgraphId

MACHINE = Path(__file__).parent / "machines" / "xeon_8380_a10.json"
BATCHES = tuple(2**power for power in range(9))


def row(model: str, batch: int, machine: Path) -> dict[str, Any]:
    """The best plan of a batch, beside the best that stay in one memory."""
    loaded = load_model(model)
    set_batch(loaded.graph, batch)
    session = Session.open(loaded, machine=machine)
    problem = priced_problem(Offers.of(session), "roofline")
    plan = best_plan(session, problem)
    work = {subgraph.id: subgraph.flops for subgraph in session.graph.subgraphs}
    elsewhere = [id_ for id_, d in plan.decisions.items() if not d.device.is_host]
    return {
        "model": case_name(model),
        "batch": batch,
        "cpu_us": round(_only(problem, on_host=True), 1),
        "gpu_us": round(_only(problem, on_host=False), 1),
        "plan_us": round(plan.cost_us, 1),
        "plan_spread_us": round(plan.spread_us, 1),
        "bound_us": round(plan.bound_us, 1),
        "gap": plan.gap,
        "copies": sum(boundary.kind == "copy" for boundary in plan.boundaries),
        "gpu_share_of_flops": round(sum(work[id_] for id_ in elsewhere) / sum(work.values()), 4),
        "units": _by_unit(plan.decisions),
    }


def _only(problem: PlanningProblem, *, on_host: bool) -> float:
    """The best plan that computes on the host, or off it wherever a sub-graph can."""
    decisions = best_with(problem, lambda _, option: (option.memory == HOST) == on_host)
    return problem.cost(decisions).total_us


def _by_unit(decisions: Mapping[SubgraphId, Decision]) -> dict[str, list[str]]:
    units: dict[str, list[str]] = {}
    for id_, decision in decisions.items():
        units.setdefault(decision.unit, []).append(id_)
    return units


def panel(rows: Sequence[Mapping[str, Any]]) -> Panel:
    """A model's predicted times for each of a batch."""
    names = {"cpu_us": "CPU alone", "gpu_us": "GPU alone", "plan_us": "plan"}
    return Panel(
        title=rows[0]["model"],
        x="batch",
        y="predicted µs for each of the batch",
        curves=tuple(
            Curve(name=name, points=tuple((r["batch"], r[key] / r["batch"]) for r in rows))
            for key, name in names.items()
        ),
        share=tuple((r["batch"], r["gpu_share_of_flops"]) for r in rows),
        share_name="share of the plan's FLOPs on the GPU",
    )


def main() -> None:
    """Print and save the rows of every model that the command line names, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--machine", type=Path, default=MACHINE)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--svg", type=Path, required=True)
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for model in arguments.models:
        for batch in BATCHES:
            made = {
                "modelled_machine": arguments.machine.name,
                **row(model, batch, arguments.machine),
            }
            print(*list(made.values())[:-1], sep="\t", flush=True)
            found.append(made)
        save(arguments.json, found)
    models = dict.fromkeys(made["model"] for made in found)
    panels = [panel([made for made in found if made["model"] == model]) for model in models]
    draw(panels, arguments.svg)


if __name__ == "__main__":
    main()
