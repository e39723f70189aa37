"""Joint search against others at equal numbers of accuracy queries, with common weights as the oracle.

``PYTHONPATH=bench python -m search.joint_baselines FOLDER --json bench/results/search_joint.json --svg
bench/results/search_joint.svg``. The folder keeps the common weights and all accuracies, so that an interrupted run goes on.
One row for each scenario of nodes, seed and method; times are predictions and free for all. Figures are hypervolumes over
(logarithm of the time, validation accuracy), up to the time that 99 % of random networks keep and an accuracy of 10 %, as a
share of that box.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from layoutsel import documents
from layoutsel.benchmarking.compare import save
from layoutsel.report.curves import Series, write_curves
from layoutsel.search.comparison import compare, holm
from layoutsel.search.dominance import hypervolume
from layoutsel.search.front import Scores
from layoutsel.search.label_setting import front_of
from layoutsel.search.pricing import priced
from layoutsel.search.product_graph import product_graph
from layoutsel.search.run_folder import RunFolder
from layoutsel.search.space import Architecture
from search.joint_methods import METHODS, OURS
from search.joint_others import feasible
from search.joint_task import CHANCE, QUERIES, SCENARIOS, Ask, Oracle, Task, question

SEEDS, QUANTILE = 8, 0.99
"""Searches of each method, and the quantile of the times of random networks that is the reference."""


@dataclass(frozen=True)
class Row:
    """One search."""

    scenario: str
    method: str
    seed: int
    queries: int
    hypervolume: float
    curve: tuple[float, ...]
    """Hypervolume after each twelfth of the queries."""


def rows_of(scenario: str, task: Task, seed: int, box: tuple[float, float]) -> Iterator[Row]:
    """Run all methods with a seed; those that ask alike share their queries."""
    asked: dict[Ask, list[Architecture]] = {}
    for name, (ask, place) in METHODS.items():
        if ask not in asked:
            asked[ask] = ask(task, seed)
        networks = asked[ask]
        us = np.array([place(task, one) for one in networks])
        accuracy = np.array(task.oracle(networks))
        ends = [round(len(networks) * (index + 1) / 12) for index in range(12)]
        curve = tuple(round(volume(us[:end], accuracy[:end], box), 5) for end in ends)
        yield Row(scenario, name, seed, len(networks), volume(us, accuracy, box), curve)


def volume(us: np.ndarray, accuracy: np.ndarray, box: tuple[float, float]) -> float:
    """Share of the box that networks dominate; those with infinite times do not fit."""
    low, high = box
    fits = np.isfinite(us)
    cost = np.log(us[fits] / low) / np.log(high / low)
    return hypervolume(cost, accuracy[fits], (1.0, CHANCE)) / (1 - CHANCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    rows = [Row(**{**row, "curve": tuple(row["curve"])}) for row in _saved(arguments.json)]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    oracle = Oracle(arguments.folder, question(next(iter(SCENARIOS.values()))), arguments.threads)
    for name in arguments.scenarios:
        run = RunFolder.begin(arguments.folder / name, question(SCENARIOS[name]), arguments.folder)
        task = Task(run.question, priced(run), oracle)
        graph = product_graph(task.space, task.table, task.routes)
        low = front_of(graph, Scores(single=())).points[0].us
        drawn = itertools.islice(feasible(task, np.random.default_rng(12345)), 300)
        high = float(np.quantile([task.us(one) for one in drawn], QUANTILE))
        done = {row.seed for row in rows if row.scenario == name}
        for seed in range(arguments.seeds):
            if seed not in done:
                rows += rows_of(name, task, seed, (low, high))
                save(arguments.json, [asdict(row) for row in rows])
                print(name, seed, flush=True)
                for row in rows[-len(METHODS) :]:
                    print(f"  {row.method} {row.hypervolume:.4f}", flush=True)
        own = [row for row in rows if row.scenario == name]
        _summary(name, own)
        if arguments.svg is not None:
            file = arguments.svg.with_stem(f"{arguments.svg.stem}_{name.replace(' ', '_')}")
            _draw(name, own, file)
    oracle.trainer.close()


def _saved(file: Path) -> list[dict[str, object]]:
    return documents.load_json(file)["rows"] if file.exists() else []


def _summary(scenario: str, rows: Sequence[Row]) -> None:
    by_name = {name: [row.hypervolume for row in rows if row.method == name] for name in METHODS}
    gains = {
        name: compare(by_name[OURS], values) for name, values in by_name.items() if name != OURS
    }
    adjusted = holm({name: gain.p for name, gain in gains.items()})
    print(f"{scenario}, {OURS}: median {np.median(by_name[OURS]):.4f}")
    for name, gain in gains.items():
        theirs = np.mean(by_name[name])
        share = f"{100 * gain.mean / theirs:+.1f} %" if theirs else f"{gain.mean:+.4f}"
        print(
            f"{name}: median {np.median(by_name[name]):.4f}, ours {share} "
            f"[{gain.low:+.4f}, {gain.high:+.4f}], p {gain.p:.4f}, Holm {adjusted[name]:.4f}"
        )


def _draw(scenario: str, rows: Sequence[Row], file: Path) -> None:
    series = []
    for name in METHODS:
        curves = np.array([row.curve for row in rows if row.method == name])
        steps = np.linspace(QUERIES / 12, QUERIES, 12)
        points = tuple(zip(steps.tolist(), np.median(curves, axis=0).tolist(), strict=True))
        series.append(Series(name=name, points=points))
    title = f"Joint search on MNIST-1D, {scenario}: median hypervolume over the seeds"
    write_curves(series, file, title=title, x="accuracy queries", y="share of the box")


if __name__ == "__main__":
    main()
