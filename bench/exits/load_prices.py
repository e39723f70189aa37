"""Errors of prices under load, on networks and loads that were left out together.

``PYTHONPATH=bench python -m exits.load_prices --json bench/results/load_prices.json``. For each network and load, models
learn from the samples of other networks under other loads, and predict the time of the left-out sub-graphs. Ours
multiplies the time without load by a learned slowdown. Baselines: times linear in FLOPs and in the utilisation of the
cores, by operator and number of threads, fitted to relative errors (the formula of the requirement); the time without
load times a factor linear in the utilisation, fitted likewise; and two formulas without learning.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.benchmarking.compare import save
from layoutsel.cost.datasets import data_files
from layoutsel.cost.logs import read_logs
from layoutsel.cost.samples import LoadSample
from layoutsel.cost.slowdown import ESTIMATE
from layoutsel.cost.slowdown_training import fit_sharing, run_of, train_slowdown

Samples = Sequence[LoadSample]
Predict = Callable[[Samples], np.ndarray]
"""Predicts microseconds."""


def learned(known: Samples) -> Predict:
    """Our model, without its uncertainty."""
    sharing = fit_sharing(known)
    return lambda asked: (
        _idle_us(asked) * np.exp([sharing.log_factor(run_of(one)) for one in asked])
    )


def linear(known: Samples) -> Predict:
    """Time linear in FLOPs and utilisation, by operator and threads."""
    return _fitted(known, lambda one: (1.0, one.workload.flops, _utilisation(one)))


def linear_on_idle(known: Samples) -> Predict:
    """Time without load, times a factor linear in utilisation, by operator and threads."""
    return _fitted(known, lambda one: (one.idle_us, one.idle_us * _utilisation(one)))


def hyperbola(_known: Samples) -> Predict:
    """Time without load over the share of the cores that is left; at most four times as long."""
    return lambda asked: np.array([one.idle_us / max(1 - _utilisation(one), 0.25) for one in asked])


def estimate(_known: Samples) -> Predict:
    """Time without load over the fair share of the busiest core: the model where none is trained."""
    return lambda asked: _idle_us(asked) * ESTIMATE.factors([run_of(one) for one in asked])[0]


PREDICTORS = {one.__name__: one for one in (learned, linear, linear_on_idle, hyperbola, estimate)}


def _idle_us(samples: Samples) -> np.ndarray:
    return np.array([one.idle_us for one in samples])


def _utilisation(one: LoadSample) -> float:
    load = one.conditions.load
    assert load is not None
    return load.busy_cores / len(load.busy)


def _fitted(known: Samples, terms: Callable[[LoadSample], tuple[float, ...]]) -> Predict:
    """Least squares of relative errors for each operator and number of threads; of all where it is new."""
    groups: dict[Any, list[LoadSample]] = defaultdict(list)
    for one in known:
        groups[_kind(one)].append(one)
        groups[one.conditions.threads].append(one)

    def coefficients(some: Samples) -> np.ndarray:
        rows = np.array([terms(one) for one in some]) / np.array([[one.us] for one in some])
        scale = np.abs(rows).max(axis=0) + 1e-30
        return np.linalg.lstsq(rows / scale, np.ones(len(rows)), rcond=None)[0] / scale

    found: Mapping[Any, np.ndarray] = {key: coefficients(some) for key, some in groups.items()}

    def predict(asked: Samples) -> np.ndarray:
        return np.array(
            [
                max(
                    float(np.dot(terms(one), found.get(_kind(one), found[one.conditions.threads]))),
                    0.1,
                )
                for one in asked
            ]
        )

    return predict


def _kind(one: LoadSample) -> tuple[str, int | None]:
    return one.workload.operator, one.conditions.threads


def rows(samples: Samples) -> Iterator[dict[str, Any]]:
    """Mean relative errors of every predictor for each left-out network and load, and over all."""
    errors: dict[str, list[np.ndarray]] = defaultdict(list)
    tested: list[LoadSample] = []
    for network in sorted({one.model for one in samples}):
        for load in dict.fromkeys(str(one.conditions.load) for one in samples):
            known = [
                one for one in samples if one.model != network and str(one.conditions.load) != load
            ]
            asked = [
                one for one in samples if one.model == network and str(one.conditions.load) == load
            ]
            if not known or not asked:
                continue
            tested += asked
            measured = np.array([one.us for one in asked])
            row: dict[str, Any] = {"network": network, "load": load, "samples": len(asked)}
            for name, fit in PREDICTORS.items():
                off = np.abs(fit(known)(asked) / measured - 1)
                errors[name].append(off)
                row[name] = round(float(off.mean()), 4)
            row["slowdown"] = round(float(np.mean(measured / _idle_us(asked))), 2)
            yield row
    whole = {name: np.concatenate(some) for name, some in errors.items()}
    threads = np.array([one.conditions.threads for one in tested])
    yield {
        "network": "all",
        "load": "all",
        "samples": len(whole["learned"]),
        **{name: round(float(some.mean()), 4) for name, some in whole.items()},
        **{f"{name}_median": round(float(np.median(some)), 4) for name, some in whole.items()},
        **{
            f"{name}_on_{count}": round(float(whole[name][threads == count].mean()), 4)
            for name in ("learned", "linear")
            for count in sorted(set(threads.tolist()))
        },
        "linear_over_learned": round(float(whole["linear"].mean() / whole["learned"].mean()), 2),
    }
    yield {"network": "all", "load": "all", "covered": _covered(samples)}
    yield from _of_two_threads(tested, whole["learned"])


def _of_two_threads(tested: Samples, learned_errors: np.ndarray) -> Iterator[dict[str, Any]]:
    """Slowdowns of two threads, and their noise: how well loads of equal demand predict each other.

    Such loads differ in the kind of their work alone.
    """
    slowdowns: dict[str, list[float]] = defaultdict(list)
    pairs: dict[Any, list[int]] = defaultdict(list)
    for number, one in enumerate(tested):
        asked = one.conditions
        if asked.threads == 2 and asked.load is not None:
            slowdowns[str(asked.load)].append(one.us / one.idle_us)
            candidate = one.model, one.workload.key, one.decision, asked.cores
            pairs[candidate, asked.load.busy].append(number)
    for load, some in slowdowns.items():
        median, most = (round(float(fold(some)), 1) for fold in (np.median, np.max))
        yield {"network": "all", "load": load, "threads": 2, "median": median, "most": most}
    equal = [pair for pair in pairs.values() if len(pair) == 2]
    each = [numbers for one, other in equal for numbers in ((one, other), (other, one))]
    off = [abs(tested[one].us / tested[other].us - 1) for one, other in each]
    yield {
        "network": "all",
        "load": "of equal demand",
        "threads": 2,
        "samples": len(each),
        "other_load": round(float(np.mean(off)), 4),
        "learned": round(float(np.mean(learned_errors[[one for one, _ in each]])), 4),
    }


def _covered(samples: Samples) -> float:
    """Share of samples within the predicted interquartile range (0.5 is ideal), loads left out."""
    within = []
    for load in {str(one.conditions.load) for one in samples}:
        asked = [one for one in samples if str(one.conditions.load) == load]
        model = train_slowdown([one for one in samples if str(one.conditions.load) != load])
        factors, widths = model.factors([run_of(one) for one in asked])
        off = np.log([one.us / one.idle_us for one in asked]) - np.log(factors)
        within.append(np.abs(off) <= widths)
    return round(float(np.concatenate(within).mean()), 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", type=Path, help="data sets; the repository's by default")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    dataset, _ = read_logs(data_files(arguments.data))
    found = []
    for row in rows(dataset.loaded):
        print(*row.values(), sep="\t", flush=True)
        found.append(row)
    save(arguments.json, found)
