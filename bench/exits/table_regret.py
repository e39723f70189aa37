"""Regret of the arrangement that a table chooses for a load, against all arrangements raced under it.

``PYTHONPATH=bench python -m exits.table_regret FOLDER … --json bench/results/exits_table_regret.json``: each folder is one
of ``layoutsel exits train``. The table is made on a machine without other work, as ``compile_for_loads`` makes it. Under each
load, all arrangements answer the test samples in turns, and the fastest of them again for longer. The best one is found on
half of the turns, and its mean time and that of the chosen one are compared on the other half, and the other way round:
noise would make the best of many look better than it is. The table is told the load, and learns nothing from the race.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from exits.predictions import read_policy, turn
from layoutsel import exits
from layoutsel.benchmarking.compare import save
from layoutsel.device.core_load import COMPUTE, MEMORY, BusyProcess, CoreLoad
from layoutsel.device.load_generators import generating
from layoutsel.device.machine import this_machine
from layoutsel.device.threads import available_cores
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.arrangement_checks import arrangement_faults
from layoutsel.exits.building import model_of
from layoutsel.exits.executor import ExitAnswer
from layoutsel.exits.exit_pins import all_options
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.load_aware_building import TABLE
from layoutsel.exits.load_table import LoadTable
from layoutsel.exits.samples import Samples, read_samples


def _one(core: int, kind: str, duty: float) -> BusyProcess:
    return BusyProcess(core=core, kind=kind, duty=duty)


LOADS: Mapping[str, tuple[BusyProcess, ...]] = {
    "idle": (),
    "compute 25 %": (_one(0, COMPUTE, 0.25),),
    "compute 50 %": (_one(0, COMPUTE, 0.5),),
    "compute 75 %": (_one(0, COMPUTE, 0.75),),
    "compute 100 %": (_one(0, COMPUTE, 1.0),),
    "memory 100 %": (_one(0, MEMORY, 1.0),),
    "compute 2 x 100 %": (_one(0, COMPUTE, 1.0), _one(1, COMPUTE, 1.0)),
    "compute 50 %, memory 100 %": (_one(0, COMPUTE, 0.5), _one(1, MEMORY, 1.0)),
}
HEATS, HEAT_S = 2, 0.1
"""Number and duration of the turns of all arrangements."""
FINALISTS = 6
"""Number of the fastest arrangements that go on, beside those that the table chooses."""
TURNS, TURN_S = 6, 0.3
"""Number and duration of the turns of these; an even number."""


def arrangements(plan: ExitPlan) -> list[Arrangement]:
    """All arrangements that differ in more than the names of equal workers."""
    may_answer = [one is not None for one in plan.policy.thresholds[:-1]]
    options = all_options(plan.costs, may_answer)
    kinds = {kind.name: kind for kind in plan.costs.workers}
    found: dict[Any, Arrangement] = {}
    for trunk, *branches in itertools.product(options.trunk, *options.branches):
        one = Arrangement(trunk=trunk, branches=tuple(branches))
        if next(arrangement_faults(one, plan.costs), None) is None:
            used = list(dict.fromkeys(name for name in (trunk, *branches) if name))
            alike = tuple(None if name is None else used.index(name) for name in (trunk, *branches))
            found.setdefault((alike, *(kinds[name].threads for name in used)), one)
    return list(found.values())


def rows_of(folder: Path, turns: int, turn_s: float, count: int) -> Iterator[dict[str, Any]]:
    """Rows of one network: one for each load."""
    network, policy, seen = read_policy(folder)
    plan = exits.plan(network, policy, seen)
    compiled = exits.compile_for_loads(network, plan, seen)
    table = LoadTable.read(compiled.header[TABLE], plan.costs)
    raced = list(dict.fromkeys([*table.arrangements, *arrangements(plan)]))
    classes = compiled.outputs[0].shape[1]
    samples = read_samples(folder / "test.npz", compiled.inputs, classes)
    samples = Samples(inputs=samples.inputs[:count], labels=None)
    cores = len(available_cores())
    with model_of(compiled, plan, others=raced) as model:
        for name, processes in LOADS.items():
            load = CoreLoad.of(processes, cores)
            model.from_last = sum(load.busy[: cores // 2]) > sum(load.busy[cores // 2 :])
            chosen = raced.index(table.arrangements[table.chosen[table.grid.cell(load)]])
            idle = raced.index(table.arrangements[table.chosen[0]])
            answers = [partial(_answer, model, one) for one in raced]
            streams = [itertools.cycle(samples.inputs) for _ in raced]
            with generating(processes, limit_s=3600.0):
                heats_us = _means_us(answers, streams, HEATS, HEAT_S)
                ranked = [int(one) for one in heats_us.mean(axis=0).argsort()]
                final = list(dict.fromkeys([chosen, idle, *ranked[:FINALISTS]]))
                means_us = _means_us(
                    [answers[n] for n in final], [streams[n] for n in final], turns, turn_s
                )
            best = final[int(means_us.mean(axis=0).argmin())]
            yield {
                "network": folder.name,
                "load": name,
                "raced": len(raced),
                "chosen": vars(raced[chosen]),
                "best": vars(raced[best]),
                "chosen_us": float(means_us[:, 0].mean()),
                "best_us": float(means_us.mean(axis=0).min()),
                "regret": regret(means_us, 0),
                "regret_of_idle_choice": regret(means_us, final.index(idle)),
                "regret_of_worst": float(
                    heats_us.mean(axis=0).max() / heats_us.mean(axis=0).min() - 1
                ),
            }


def _answer(model: exits.ExitModel, one: Arrangement, *inputs: np.ndarray) -> ExitAnswer:
    return model.on(one, inputs, {})


def _means_us(
    answers: Sequence[Callable[..., ExitAnswer]],
    streams: Sequence[Iterator[Sequence[np.ndarray]]],
    turns: int,
    turn_s: float,
) -> np.ndarray:
    """Mean times by turn and arrangement, microseconds."""
    return np.array(
        [
            [
                np.mean(turn(answer, stream, turn_s))
                for answer, stream in zip(answers, streams, strict=True)
            ]
            for _ in range(turns)
        ]
    )


def regret(means_us: np.ndarray, chosen: int) -> float:
    """Relative loss against the best of all, which is found on other turns than it is measured on."""
    halves = means_us[::2].mean(axis=0), means_us[1::2].mean(axis=0)
    losses = [
        measured[chosen] / measured[found.argmin()] - 1
        for found, measured in (halves, halves[::-1])
    ]
    return float(np.mean(losses))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and worst regret of the table, and of the arrangement for an idle machine."""
    found: dict[str, Any] = {"network": "all", "loads": len(rows)}
    for key in ("regret", "regret_of_idle_choice"):
        values = [row[key] for row in rows]
        found |= {f"{key}_median": float(np.median(values)), f"{key}_worst": max(values)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--turn-s", type=float, default=TURN_S)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for folder in asked.folders:
        for row in rows_of(folder, asked.turns, asked.turn_s, asked.samples):
            rows.append({**row, "machine": this_machine().fingerprint})
            print(
                f"{row['network']:12} {row['load']:26} regret {row['regret']:+7.1%} (idle choice "
                f"{row['regret_of_idle_choice']:+7.1%}, worst {row['regret_of_worst']:+.0%}) of {row['raced']}: "
                f"{row['chosen']['trunk']} {row['chosen']['branches']} {row['chosen_us']:.0f} µs, best "
                f"{row['best']['trunk']} {row['best']['branches']} {row['best_us']:.0f} µs",
                flush=True,
            )
    found = summary(rows)
    print(found)
    save(asked.json, [*rows, found])


if __name__ == "__main__":
    main()
