"""Pictures of a multi-exit network: accuracy against latency, and distributions of latencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.comparing import Answered
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.policy import Policy
from layoutsel.exits.samples import Samples
from layoutsel.report.curves import Point, Series, write_curves

_REPEATS = 100
"""Number of measured requests for each exit."""
_SHARES = np.linspace(0, 0.99, 199)
"""Shares of the requests in distributions; the slowest would hide the others on a linear axis."""


def exit_times(model: ExitModel, samples: Samples) -> np.ndarray:
    """Median time until each exit answers as the only sure one, (E,), microseconds; NaN if off."""
    count = len(model.exits)
    inputs = samples.inputs[:_REPEATS]
    found = np.full(count, np.nan)
    for exit_ in range(count):
        answers = [model.forced((exit_,), one) for one in inputs]
        if answers[0].exit == model.exits[exit_]:
            found[exit_] = np.median([answer.us for answer in answers])
    return found


def trade_off(
    plan: ExitPlan, times_us: np.ndarray, policies: Sequence[Policy], test: ExitMatrix
) -> Series:
    """Accuracy on `test` by mean latency, milliseconds, one point for each policy.

    Parameters
    ----------
    plan
        Exit plan.
    times_us
        Times of :func:`exit_times`.
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
    return Series(name="thresholds from strict to loose", points=tuple(sorted(set(points))))


def single_exits(times_us: np.ndarray, test: ExitMatrix) -> Iterator[Series]:
    """Yield the latency, milliseconds, and accuracy of each exit if it answers every sample."""
    right = (test.predictions == test.truth[:, None]).mean(axis=0)
    for name, us, share in zip(test.exits, times_us, right, strict=True):
        if not np.isnan(us):
            points = ((float(us) / 1e3, float(share)),)
            yield Series(name=f"always {name}", points=points, is_line=False)


def draw_distributions(found: Mapping[str, Answered], file: Path, *, title: str) -> None:
    """Draw the share of the requests that each arrangement answers within a time."""
    series = []
    for name, one in found.items():
        times_ms = np.quantile(one.times_us, _SHARES, method="inverted_cdf") / 1e3
        points = tuple(zip(times_ms.tolist(), _SHARES.tolist(), strict=True))
        series.append(Series(name=name, points=points))
    write_curves(series, file, title=title, x="milliseconds", y="share of the requests")
