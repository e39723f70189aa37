"""Multi-exit networks against their own trunk, and against others that leave at the same thresholds.

``PYTHONPATH=bench python -m exits.speed FOLDER … --json bench/results/exits_speed.json``: each folder is one of
``layoutsel exits train --static`` (net.onnx, static1.onnx, …, tune.npz, certify.npz, test.npz); ``--train FOLDER`` trains
five of each data set into it first, unless they are there (one to two minutes of processor time for each).

Thresholds are chosen on the first part, certified on the second, and timed on the third: every engine in its own process,
in turns over the same samples, with a warm-up before each turn. Peers run with one and with two threads; the faster counts.
Classes are compared between the engines. A network without exits is timed as well: the smallest one that loses at most the
promised drop of accuracy on the first part, against the final exit. The last rows are geometric means over the networks of
each data set. About a minute for each network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import layoutsel
from exits import hand_split
from exits.exit_engines import ENGINES, STATIC, ExitJob, serve
from layoutsel import exits
from layoutsel.benchmarking.compare import save
from layoutsel.benchmarking.racer import LOAD_LIMIT_S, TURN_LIMIT_S, EngineError, Process
from layoutsel.device.machine import this_machine
from layoutsel.exits.training.settings import TrainingTask
from layoutsel.exits.training.train import REPORT, train

DATA, SEEDS = ("mnist5k", "mnist1d"), 5
"""Data sets, and number of networks of each."""
TURNS = 5
"""Number of turns of each engine; each answers all samples once."""


def rows_of(folder: Path, max_drop: float, confidence: float, samples: int) -> dict[str, Any]:
    """Calibrate, plan, compile and time one network."""
    network = exits.read(folder / "net.onnx")
    seen = exits.observe(network, folder / "tune.npz")
    proof = exits.observe(network, folder / "certify.npz")
    policy = exits.calibrate(seen, max_drop=max_drop, confidence=confidence, proof=proof)
    plan = exits.plan(network, policy, seen)
    exits.compile(network, plan).save(folder / "chosen.so")
    scored = network.scored(policy.score)
    onnx.save(scored, folder / "scored.onnx")
    layoutsel.optimize(hand_split.trunk_model(scored)).save(folder / "trunk.so")
    static = static_network(folder, max_drop)
    if static is not None:
        layoutsel.optimize(folder / static).save(folder / "static.so")
    with np.load(folder / "test.npz") as arrays:
        labels = arrays["labels"][:samples]
    job = ExitJob(
        scored=folder / "scored.onnx",
        folder=folder,
        policy=policy,
        samples=folder / "test.npz",
        threads=2,
    )
    left_out = {"layoutsel-sequential", *([STATIC] if static is None else [])}
    found = race(job, [name for name in ENGINES if name not in left_out], len(labels))
    engines = {name: _summary(turns, labels) for name, turns in found.items()}
    return {
        "network": folder.name,
        "data": _report(folder)["data"],
        "size": _report(folder)["size"],
        "static": static,
        "exits": list(plan.exits),
        "thresholds": list(policy.thresholds),
        "certificate": policy.certificate and vars(policy.certificate),
        "arrangement": vars(plan.arrangement),
        "predicted": vars(plan.latencies),
        "engines": engines,
    }


def static_network(folder: Path, max_drop: float) -> str | None:
    """Smallest network without exits whose accuracy is at most as far below the final exit's as ours may be."""
    own, *others = _report(folder)["networks"]  # in the order of their work
    least = own["tune_accuracies"][-1] - max_drop
    enough = [one["file"] for one in others if one["tune_accuracies"][-1] >= least]
    return enough[0] if enough else None


def _report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / REPORT).read_text())


def race(job: ExitJob, names: Sequence[str], samples: int) -> dict[str, Any]:
    """Answer all samples with every engine, in turns; a failing engine is left out."""
    started = {name: Process(serve, name, job) for name in names}
    processes = {}
    try:
        for name, process in started.items():
            try:
                process.answer(LOAD_LIMIT_S)
            except EngineError as error:
                print(f"{name}: {error}", flush=True)
            else:
                processes[name] = process
        found: dict[str, Any] = {name: [] for name in processes}
        for _ in range(TURNS):
            for name, process in processes.items():
                found[name].append(process.ask(range(samples), TURN_LIMIT_S))
        return found
    finally:
        for process in started.values():
            process.close()


def _summary(
    turns: Sequence[Sequence[tuple[float, int, int]]], labels: np.ndarray
) -> dict[str, Any]:
    times = np.array([[us for us, _, _ in turn] for turn in turns])
    classes = np.array([label for _, label, _ in turns[0]])
    taken = [exit_ for _, _, exit_ in turns[0]]
    own = np.median(times, axis=0)
    means = times.mean(axis=1)
    return {
        "mean_us": float(np.median(means)),
        "mean_spread_us": float(np.subtract(*np.percentile(means, [75, 25])) / 2),
        **{f"p{q}_us": float(np.percentile(own, q)) for q in (50, 95, 99)},
        "accuracy": float((classes == labels).mean()),
        "exits": {str(exit_): taken.count(exit_) for exit_ in sorted(set(taken))},
    }


def table(row: dict[str, Any]) -> Iterator[str]:
    """Lines of a readable table."""
    base = row["engines"]["layoutsel-trunk"]
    for name, one in row["engines"].items():
        yield (
            f"{row['network']:16} {name:24} mean {one['mean_us']:8.1f} µs ({base['mean_us'] / one['mean_us']:.2f}x) "
            f"p50 {one['p50_us']:8.1f} ({base['p50_us'] / one['p50_us']:.2f}x) p95 {one['p95_us']:8.1f} "
            f"accuracy {one['accuracy']:.3f}"
        )


PEERS = {
    "own trunk alone": ("layoutsel-trunk",),
    "static network": (STATIC,),
    "ONNX Runtime, segments": ("onnxruntime-segments-1", "onnxruntime-segments-2"),
    "ONNX Runtime, If": ("onnxruntime-if-1", "onnxruntime-if-2"),
    "OpenVINO, segments": ("openvino-segments-1", "openvino-segments-2"),
}
"""Engines by name in the summary; the faster one counts."""


def summaries(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """How many times longer others take than ours: geometric means over the networks of a data set and size."""
    for kind in dict.fromkeys((row["data"], row["size"]) for row in rows):
        own = [row["engines"] for row in rows if (row["data"], row["size"]) == kind]
        longer = {peer: _times_longer(own, names) for peer, names in PEERS.items()}
        yield {"data": kind[0], "size": kind[1], "networks": len(own), "times_longer": longer}


def _times_longer(own: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    held = [one for one in own if not one.keys().isdisjoint(names)]
    found: dict[str, Any] = {"networks": len(held)}
    for figure in ("mean_us", "p50_us") if held else ():
        ratios = [
            min(one[name][figure] for name in names if name in one) / one["layoutsel"][figure]
            for one in held
        ]
        mean = float(np.exp(np.log(ratios).mean()))
        found[figure] = {"geometric_mean": mean, "least": min(ratios), "most": max(ratios)}
    return found


def trained(folder: Path) -> list[Path]:
    """Train networks of all data sets and seeds that the folder lacks."""
    tasks = [
        TrainingTask(data=data, seed=seed, static=True) for data in DATA for seed in range(SEEDS)
    ]
    folders = [folder / f"{task.data}_{task.seed}" for task in tasks]
    for task, one in zip(tasks, folders, strict=True):
        if not (one / REPORT).exists():
            print(f"training {one.name}", flush=True)
            train(task, one)
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--train", type=Path, metavar="FOLDER")
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    rows = []
    for folder in [*asked.folders, *(trained(asked.train) if asked.train else ())]:
        row = rows_of(folder, asked.max_drop, asked.confidence, asked.samples)
        rows.append({**row, "machine": this_machine().fingerprint})
        print(*table(row), sep="\n", flush=True)
        save(asked.json, [*rows, *summaries(rows)])
    for one in summaries(rows):
        print(json.dumps(one))


if __name__ == "__main__":
    main()
