"""Multi-exit networks against their own trunk, and against others that leave at the same thresholds.

``PYTHONPATH=bench python -m exits.speed FOLDER … --json bench/results/exits_speed.json``: each folder is one of
``layoutsel exits train`` (net.onnx, tune.npz, certify.npz, test.npz). Thresholds are chosen on the first part, certified on
the second, and timed on the third: every engine in its own process, in turns over the same samples, with a warm-up before
each turn. Peers run with one and with two threads; the faster counts. Classes are compared between the engines.
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
from exits.exit_engines import ENGINES, ExitJob, serve
from layoutsel import exits
from layoutsel.benchmarking.compare import save
from layoutsel.benchmarking.racer import LOAD_LIMIT_S, TURN_LIMIT_S, EngineError, Process
from layoutsel.device.machine import this_machine

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
    with np.load(folder / "test.npz") as arrays:
        labels = arrays["labels"][:samples]
    job = ExitJob(
        scored=folder / "scored.onnx",
        folder=folder,
        policy=policy,
        samples=folder / "test.npz",
        threads=2,
    )
    found = race(job, [name for name in ENGINES if name != "layoutsel-sequential"], len(labels))
    engines = {name: _summary(turns, labels) for name, turns in found.items()}
    return {
        "network": folder.name,
        "exits": list(plan.exits),
        "thresholds": list(policy.thresholds),
        "certificate": policy.certificate and vars(policy.certificate),
        "arrangement": vars(plan.arrangement),
        "predicted": vars(plan.latencies),
        "engines": engines,
    }


def race(job: ExitJob, names: Sequence[str], samples: int) -> dict[str, Any]:
    """Answer all samples with every engine, in turns; a failing engine is left out."""
    processes = {}
    try:
        for name in names:
            process = Process(serve, name, job)
            try:
                process.answer(LOAD_LIMIT_S)
            except EngineError as error:
                print(f"{name}: {error}", flush=True)
                process.close()
            else:
                processes[name] = process
        found: dict[str, Any] = {name: [] for name in processes}
        for _ in range(TURNS):
            for name, process in processes.items():
                found[name].append(process.ask(range(samples), TURN_LIMIT_S))
        return found
    finally:
        for process in processes.values():
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    rows = []
    for folder in asked.folders:
        row = rows_of(folder, asked.max_drop, asked.confidence, asked.samples)
        rows.append({**row, "machine": this_machine().fingerprint})
        print(*table(row), sep="\n", flush=True)
        save(asked.json, rows)
    print(json.dumps({"rows": len(rows)}))


if __name__ == "__main__":
    main()
