"""Branches beside the trunk, against all exits in sequence and the trunk alone, where no exit is sure.

``PYTHONPATH=bench python -m exits.branches images --json bench/results/exits_branches.json``: networks of
:mod:`exits.deep_networks`, with random weights. The file keeps its rows of other networks, as hundreds of layers take
minutes. The networks are planned for requests of which half are sure at some exit. Then all arrangements answer requests of
which no exit is sure, and requests as planned for, in turns: in sequence on one thread and on two, with the branches on a
second pinned worker of one thread, and the trunk alone on one thread and on two. Each code is compiled for its number of
threads. Times count on the calling thread, from the call to its return.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from exits.deep_networks import DEEP, made
from layoutsel import documents, exits
from layoutsel.benchmarking.compare import save
from layoutsel.device.machine import this_machine
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.building import model_of
from layoutsel.exits.costs import priced
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_code import compiled_for
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.measured_costs import measured
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.planner import ExitProblem, plan_exits
from layoutsel.exits.policy import Policy
from layoutsel.exits.racing import race
from layoutsel.exits.stage_times import stage_costs_us
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs

SEQUENCE_1, SEQUENCE_2, BESIDE, ALONE_1, ALONE_2 = ARRANGEMENTS = (
    "sequence, 1 thread",
    "sequence, 2 threads",
    "beside the trunk",
    "trunk alone, 1 thread",
    "trunk alone, 2 threads",
)
SHARES = (0.25, 0.15, 0.10)
"""Shares of the requests of which each early exit is the first sure one; it and all later ones are sure."""
SAMPLES = 100
TIMED = 100


def patterns() -> tuple[SurePattern, ...]:
    """Sure exits of the requests that are planned for."""
    early = len(SHARES)
    found = [
        SurePattern(exits=tuple(range(first, early)), samples=round(SAMPLES * share))
        for first, share in enumerate(SHARES)
    ]
    left = SAMPLES - sum(one.samples for one in found)
    return (*found, SurePattern(exits=(), samples=left))


def arrangements(early: int) -> dict[str, Arrangement]:
    """Arrangements by name, on two cores."""
    one, other, both = "cpu-1", "cpu-1b", "cpu-2"
    workers = {
        SEQUENCE_1: (one, one),
        SEQUENCE_2: (both, both),
        BESIDE: (one, other),
        ALONE_1: (one, None),
        ALONE_2: (both, None),
    }
    return {
        name: Arrangement(trunk=trunk, branches=(branch,) * early)
        for name, (trunk, branch) in workers.items()
    }


def in_turns(runs: Mapping[str, Callable[[], object]], limit_s: float) -> dict[str, np.ndarray]:
    """Times of runs in turns, microseconds; each is repeated once before it counts, as others used the caches."""
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    end_s = time.monotonic() + limit_s
    number = 0
    while not number or time.monotonic() < end_s:
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            runs[name]()
            start_s = time.perf_counter()
            runs[name]()
            times[name].append(1e6 * (time.perf_counter() - start_s))
        number += 1
    return {name: np.array(found) for name, found in times.items()}


def processor_us(models: Mapping[str, ExitModel], inputs: Sequence[np.ndarray]) -> dict[str, float]:
    """Processor time of the calling thread for a request of which no exit is sure, median, microseconds.

    The request's second worker has a thread of its own. Waiting takes no processor time.
    """
    found: dict[str, list[int]] = {name: [] for name in models}
    asked = {name: model.forcing((), inputs) for name, model in models.items()}
    for _ in range(TIMED):
        for name, request in asked.items():
            request()
            start_ns = time.thread_time_ns()
            request()
            found[name].append(time.thread_time_ns() - start_ns)
    return {name: float(np.median(some)) / 1e3 for name, some in found.items()}


def work_share(costs: ExitCosts, worker: str) -> float:
    """Share of the branches in the time of all stages on a worker."""
    times_us = stage_costs_us(costs, worker)
    return sum(us for name, us in times_us.items() if name.startswith("branch")) / sum(
        times_us.values()
    )


def row_of(name: str, limit_s: float) -> dict[str, Any]:
    """Figures of one network."""
    network = exits.read(made(DEEP[name]))
    early = len(network.names) - 1
    policy = Policy(score="max_prob", thresholds=(*(0.5,) * early, None))
    network = network.with_policy(policy)
    found = priced(network)
    code = {threads: compiled_for(network, found, threads, verify=False) for threads in found.plans}
    found = replace(found, costs=measured(found.costs, code))
    problem = ExitProblem(
        exits=network.names, costs=found.costs, policy=policy, patterns=patterns()
    )
    plan = plan_exits(problem, model_name=name, model_hash=network.spec.model_hash)
    with ExitStack() as stack:
        models = {one: stack.enter_context(model) for one, model in arranged(code, plan).items()}
        raced = race(models, plan, limit_s)
        inputs = random_inputs(models[BESIDE].compiled.inputs)
        hard = {one: partial(model.forced, (), inputs) for one, model in models.items()}
        times = in_turns(hard, limit_s)
        mean_us = means(models, inputs, plan, limit_s)
        threads_us = processor_us({one: models[one] for one in (BESIDE, ALONE_1)}, inputs)
    return {
        "network": name,
        "branch_share_of_time": work_share(found.costs, "cpu-1"),
        "no_exit_sure": {one: figures(some) for one, some in times.items()},
        "as_planned_for_mean_us": mean_us,
        "predicted_worst_us": predicted(plan, "worst_us"),
        "predicted_mean_us": predicted(plan, "mean_us"),
        "ratios_where_no_exit_is_sure": ratios(
            {one: float(np.median(t)) for one, t in times.items()}
        ),
        "ratios_as_planned_for": ratios(mean_us),
        "costs": {
            "request_us": found.costs.request_us,
            "call_us": found.costs.call_us,
            "handover_us": found.costs.handover_us.get("cpu-1>cpu-1b", (0.0,))[0],
            "slowdown": found.costs.slowdown.get("cpu-1|cpu-1b", 1.0),
        },
        "calling_thread_us": threads_us,
        "planned": vars(plan.arrangement),
        "raced_us": {one: time.us for one, time in raced.items()},
        "winner": min(raced, key=lambda one: raced[one].us),
    }


def arranged(code: Mapping[int, CompiledModel], plan: ExitPlan) -> dict[str, ExitModel]:
    """Models of all arrangements, each with the code for its number of threads; no exit is sure by itself."""
    kinds = {kind.name: kind for kind in plan.costs.workers}
    never = replace(plan.policy, thresholds=(None,) * len(plan.exits))
    return {
        name: model_of(code[kinds[one.trunk].threads], replace(plan, policy=never, arrangement=one))
        for name, one in arrangements(len(plan.exits) - 1).items()
    }


def means(
    models: Mapping[str, ExitModel], inputs: Sequence[np.ndarray], plan: ExitPlan, limit_s: float
) -> dict[str, float]:
    """Mean over the patterns of the median times of each, microseconds."""
    medians: dict[str, list[float]] = {name: [] for name in models}
    for one in plan.patterns:
        runs = {name: partial(model.forced, one.exits, inputs) for name, model in models.items()}
        for name, times in in_turns(runs, limit_s / len(plan.patterns)).items():
            medians[name].append(float(np.median(times)))
    samples = [one.samples for one in plan.patterns]
    return {name: float(np.average(some, weights=samples)) for name, some in medians.items()}


def figures(times_us: np.ndarray) -> dict[str, float]:
    """Median, its spread, and the 95th percentile."""
    low, middle, high, late = np.percentile(times_us, [25, 50, 75, 95])
    return {
        "p50_us": float(middle),
        "spread_us": float(high - low) / 2,
        "p95_us": float(late),
        "runs": len(times_us),
    }


def ratios(times_us: Mapping[str, float]) -> dict[str, float]:
    """How many times longer others take than branches beside the trunk."""
    return {name: us / times_us[BESIDE] for name, us in times_us.items() if name != BESIDE}


def predicted(plan: ExitPlan, figure: str) -> dict[str, float]:
    """Predictions of the baselines."""
    return {one.name: float(getattr(one.latencies, figure)) for one in plan.baselines}


def lines(row: Mapping[str, Any]) -> Iterator[str]:
    """Readable table of one network."""
    yield f"{row['network']}: branches take {row['branch_share_of_time']:.0%} of the time of all stages on one thread"
    for name in ARRANGEMENTS:
        hard, mean_us = row["no_exit_sure"][name], row["as_planned_for_mean_us"][name]
        yield f"  {name:24} no exit sure {hard['p50_us']:9.1f} ± {hard['spread_us']:6.1f} µs   mean as planned for {mean_us:9.1f} µs"
    for key in (
        "costs",
        "calling_thread_us",
        "raced_us",
        "predicted_worst_us",
        "predicted_mean_us",
    ):
        yield f"  {key}: " + ", ".join(f"{name} {value:.1f}" for name, value in row[key].items())
    yield f"  planned {row['planned']}, fastest in the race: {row['winner']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--limit-s", type=float, default=8.0, help="time of each comparison")
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    names = asked.networks or list(DEEP)
    before = documents.load_json(asked.json)["rows"] if asked.json.exists() else []
    rows = [row for row in before if row["network"] not in names]
    for name in names:
        row = row_of(name, asked.limit_s)
        rows.append({**row, "machine": this_machine().fingerprint})
        print(*lines(row), sep="\n", flush=True)
        save(asked.json, rows)


if __name__ == "__main__":
    main()
