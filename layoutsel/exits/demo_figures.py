"""Pictures of a multi-exit network: accuracy against latency, and distributions of latencies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.comparing import Answered
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.policy import Policy
from layoutsel.exits.samples import Samples
from layoutsel.exits.training.train import NetworkReport
from layoutsel.report.curves import Point, Series, write_curves

_REPEATS = 100
"""Number of measured requests for each exit, and for each network without exits."""
_SHARES = np.linspace(0, 0.99, 199)
"""Shares of the requests in distributions."""

Timed = Callable[[Sequence[np.ndarray]], float]
"""Function that answers a request with these inputs, and returns its time, microseconds."""


def exit_times(model: ExitModel) -> dict[str, Timed]:
    """Requests of which exactly one exit is sure, by its name; NaN if another one answers."""

    def run(number: int, inputs: Sequence[np.ndarray]) -> float:
        answer = model.forced((number,), inputs)
        return answer.us if answer.exit == model.exits[number] else np.nan

    return {name: partial(run, number) for number, name in enumerate(model.exits)}


def medians_in_turns(runs: Mapping[str, Timed], samples: Samples) -> dict[str, float]:
    """Median time of each run over the first samples, sample by sample in turns, microseconds.

    Times that are NaN do not count; the median is NaN if all are.
    """
    times_us: dict[str, list[float]] = {name: [] for name in runs}
    for inputs in samples.inputs[:_REPEATS]:
        for name, run in runs.items():
            us = run(inputs)
            if not np.isnan(us):
                times_us[name].append(us)
    return {name: float(np.median(of)) if of else np.nan for name, of in times_us.items()}


def trade_off(
    plan: ExitPlan, times_us: np.ndarray, policies: Sequence[Policy], test: ExitMatrix
) -> Series:
    """Accuracy on `test` by mean latency, milliseconds, one point for each policy.

    Parameters
    ----------
    plan
        Exit plan.
    times_us
        Time until each exit answers as the only sure one, (E,), microseconds; NaN if off.
    policies
        Policies.
    test
        Observations.
    """
    rows = np.arange(test.samples)
    points: list[Point] = []
    for policy in policies:
        sure = np.column_stack([policy.sure(test), np.ones(test.samples, bool)])
        exits, known_us = ANSWERS[plan.answer](times_us, sure)
        right = test.predictions[rows, exits] == test.truth
        points.append((float(known_us.mean()) / 1e3, float(right.mean())))
    return Series(name="thresholds from strict to loose", points=tuple(dict.fromkeys(points)))


def single_exits(times_us: np.ndarray, test: ExitMatrix) -> Series:
    """Latency, milliseconds, and accuracy of each exit that is on if it answers every sample."""
    right = (test.predictions == test.truth[:, None]).mean(axis=0)
    on = np.flatnonzero(~np.isnan(times_us))
    return Series(
        name="always the same exit",
        points=tuple((float(times_us[number]) / 1e3, float(right[number])) for number in on),
        is_line=False,
        labels=tuple(test.exits[number] for number in on),
    )


def single_networks(times_us: Mapping[str, float], networks: Sequence[NetworkReport]) -> Series:
    """Latency, milliseconds, and accuracy of networks without exits."""
    return Series(
        name="networks without exits",
        points=tuple((times_us[one.file] / 1e3, one.test_accuracies[-1]) for one in networks),
        is_line=False,
        labels=tuple(Path(one.file).stem for one in networks),
    )


def draw_distributions(found: Mapping[str, Answered], file: Path, *, title: str) -> None:
    """Draw the share of the requests that each arrangement answers within a time."""
    series = []
    for name, one in found.items():
        times_ms = np.quantile(one.times_us, _SHARES, method="inverted_cdf") / 1e3
        points = tuple(zip(times_ms.tolist(), _SHARES.tolist(), strict=True))
        series.append(Series(name=name, points=points))
    write_curves(series, file, title=title, x="milliseconds", y="share of the requests", log_x=True)
