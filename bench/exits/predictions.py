"""Predicted against measured latencies of multi-exit networks, on an idle machine and beside other work.

``PYTHONPATH=bench python -m exits.predictions FOLDER … --json bench/results/exits_predictions.json``: each folder is one of
``layoutsel exits train``. The plan is made and its costs are measured once, on a machine without other work. Then all
arrangements answer the same test samples in turns, under each load. Predictions under a load know the load and the costs on
the idle machine, and nothing that was measured under a load. The time counts from the call until the answer is returned.
Requests follow one another without a pause.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel import exits
from layoutsel.benchmarking.compare import save
from layoutsel.device.core_load import COMPUTE, MEMORY, BusyProcess, CoreLoad
from layoutsel.device.load_generators import generating
from layoutsel.device.machine import this_machine
from layoutsel.device.threads import available_cores
from layoutsel.exits.comparing import contenders
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.latencies import LatencyModel
from layoutsel.exits.loaded_costs import loaded_costs
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.network import ExitNetwork
from layoutsel.exits.patterns import SurePattern, patterns_of
from layoutsel.exits.policy import Policy
from layoutsel.exits.samples import Samples, read_samples

LOADS: Mapping[str, tuple[BusyProcess, ...]] = {
    "idle": (),
    "one core busy": (BusyProcess(core=0, kind=COMPUTE),),
    "both cores busy": (BusyProcess(core=0, kind=COMPUTE), BusyProcess(core=1, kind=COMPUTE)),
    "one core half busy": (BusyProcess(core=0, kind=COMPUTE, duty=0.5),),
    "both cores half busy": (
        BusyProcess(core=0, kind=COMPUTE, duty=0.5),
        BusyProcess(core=1, kind=COMPUTE, duty=0.5),
    ),
    "memory stream on one core": (BusyProcess(core=0, kind=MEMORY),),
}
QUANTILES = {"p50_us": 0.5, "p95_us": 0.95}
TURN_S = 0.4
"""Shortest turn of one arrangement: a hundred time slices of the scheduler."""


def read_policy(folder: Path) -> tuple[ExitNetwork, Policy, ExitMatrix]:
    """Network of a folder, its policy for a loss of at most 1 %, and the observations for its plan."""
    network = exits.read(folder / "net.onnx")
    seen = exits.observe(network, folder / "tune.npz")
    proof = exits.observe(network, folder / "certify.npz")
    policy = exits.calibrate(seen, max_drop=0.01, confidence=0.95, proof=proof)
    return network, policy, seen


def turn(
    answer: Callable[..., ExitAnswer], samples: Iterator[Sequence[np.ndarray]], turn_s: float
) -> list[float]:
    """Times of answers to the next samples for some time, after a tenth of it as warm-up, microseconds."""
    times: list[float] = []
    begin_s = time.perf_counter()
    for inputs in samples:
        start_s = time.perf_counter()
        answer(*inputs)
        ended_s = time.perf_counter()
        if start_s > begin_s + 0.1 * turn_s:
            times.append(1e6 * (ended_s - start_s))
        if times and ended_s > begin_s + turn_s:
            break
    return times


def measured(
    models: Mapping[str, ExitModel], samples: Samples, turns: int, turn_s: float
) -> dict[str, dict[str, float]]:
    """Mean, median and 95th percentile of all arrangements, and half the interquartile range of the turns' means."""
    times: dict[str, list[list[float]]] = {name: [] for name in models}
    # A turn goes on with the samples where the arrangement's last one ended.
    streams = {name: itertools.cycle(samples.inputs) for name in models}
    for _ in range(turns):
        for name, model in models.items():
            times[name].append(turn(model, streams[name], turn_s))
    found = {}
    for name, some in times.items():
        means = [float(np.mean(one)) for one in some]
        every = np.concatenate(some)
        found[name] = {
            "mean_us": float(every.mean()),
            **{key: float(np.quantile(every, share)) for key, share in QUANTILES.items()},
            "spread_us": float(np.subtract(*np.percentile(means, [75, 25])) / 2),
        }
    return found


def rows_of(
    folder: Path, turns: int, turn_s: float, count: int, loads: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Rows of one network: one for each load and arrangement."""
    network, policy, seen = read_policy(folder)
    plan = exits.plan(network, policy, seen)
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "net.so"
        with exits.compile(network, plan, race_s=0) as compiled:
            compiled.save(path)
        with contenders(path) as models:
            first = next(iter(models.values())).compiled
            samples = read_samples(folder / "test.npz", first.inputs, first.outputs[0].shape[1])
            own = exits.observe(network, folder / "test.npz")
            samples = Samples(inputs=samples.inputs[:count], labels=None)
            asked = patterns_of(policy.sure(own)[: len(samples.inputs)])
            for load in loads:
                with generating(LOADS[load], limit_s=3600.0):
                    times = measured(models, samples, turns, turn_s)
                for name, model in models.items():
                    yield {
                        "network": folder.name,
                        "load": load,
                        "arrangement": name,
                        "workers": vars(model.arrangement),
                        "measured": times[name],
                        "predicted": predicted(plan, model, load, asked),
                        "predicted_for_tune_samples": predicted(plan, model, load, plan.patterns),
                        "costs": {
                            "request_us": plan.costs.request_us,
                            "call_us": plan.costs.call_us,
                        },
                    }


def predicted(
    plan: ExitPlan, model: ExitModel, load: str, patterns: Sequence[SurePattern]
) -> dict[str, float]:
    """Latencies for samples with some patterns of sure exits."""
    of = CoreLoad.of(LOADS[load], len(available_cores()))
    costs = loaded_costs(plan.costs, plan.answer)(of)
    found = LatencyModel(costs, plan.policy, patterns, answer=plan.answer).latencies(
        model.arrangement
    )
    return {key: getattr(found, key) for key in ("mean_us", *QUANTILES)}


def line(row: Mapping[str, Any]) -> str:
    """Line of a readable table."""
    cells = (
        f"{key[:-3]} {row['predicted'][key]:7.1f} for {row['measured'][key]:7.1f} µs ({error(row, key):+4.0%})"
        for key in ("mean_us", *QUANTILES)
    )
    return f"{row['network']:13} {row['load']:26} {row['arrangement']:23} {'   '.join(cells)}"


def error(row: Mapping[str, Any], key: str, of: str = "predicted") -> float:
    """Relative error of a prediction."""
    return float(row[of][key] / row["measured"][key] - 1)


def summary(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Mean and largest errors, of the planned arrangements and of all of them."""
    for which, some in (
        ("planned", [one for one in rows if one["arrangement"] == "as compiled"]),
        ("all", rows),
    ):
        for of in ("predicted", "predicted_for_tune_samples"):
            yield {
                "arrangements": which,
                "of": of,
                **{
                    f"{key}_{name}": round(float(fold([abs(error(r, key, of)) for r in some])), 4)
                    for key in ("mean_us", *QUANTILES)
                    for name, fold in (("error", np.mean), ("worst", np.max))
                },
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--turn-s", type=float, default=TURN_S)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--loads", nargs="*", choices=LOADS, default=list(LOADS))
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for folder in asked.folders:
        for row in rows_of(folder, asked.turns, asked.turn_s, asked.samples, asked.loads):
            rows.append({**row, "machine": this_machine().fingerprint})
            print(line(row), flush=True)
        save(asked.json, rows)
    found = list(summary(rows))
    for one in found:
        print(one)
    save(asked.json, [*rows, *found])


if __name__ == "__main__":
    main()
