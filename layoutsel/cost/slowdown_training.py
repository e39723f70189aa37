"""Training of the model of slowdowns; deterministic, within seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layoutsel.core.workload import Estimate
from layoutsel.cost import slowdown
from layoutsel.cost.boosters import BoosterPair
from layoutsel.cost.samples import LoadSample, noise_weight
from layoutsel.cost.slowdown import LoadedRun, Slowdown, SlowdownCard
from layoutsel.cost.training import FEWEST, Table, TrainingOptions, constraints, fit_part
from tvm_passes.errors import LayoutselError

OPTIONS = TrainingOptions(rounds=100, quantile_rounds=40, depth=3, rate=0.05, least_weight=8.0)
"""Hyperparameters for a few features and about a thousand samples."""


def run_of(sample: LoadSample) -> LoadedRun:
    """Make the run of a sample, with its measured time without load."""
    cost = sample.workload.cost(Estimate(sample.idle_us), sample.decision)
    return LoadedRun.of(cost, sample.conditions, sample.conditions)


def fit_waits(samples: Sequence[LoadSample]) -> tuple[float, ...]:
    """Fit the coefficients of :func:`~layoutsel.cost.slowdown.wait_terms` by ridge regression."""
    runs = [run_of(sample) for sample in samples]
    terms = np.array([slowdown.wait_terms(run) for run in runs])
    _, shares = slowdown.table(runs)
    targets = np.log([sample.us / sample.idle_us for sample in samples]) - shares
    found = np.linalg.solve(terms.T @ terms + np.eye(terms.shape[1]), terms.T @ targets)
    return tuple(round(max(float(one), 0.0), 4) for one in found)


def slowdown_table(samples: Sequence[LoadSample], waits: Sequence[float]) -> Table:
    """Make the training table of samples; those of one load form a group.

    Parameters
    ----------
    samples
        Samples.
    waits
        Coefficients of :func:`fit_waits`.
    """
    rows, margins = slowdown.table([run_of(sample) for sample in samples], waits)
    return Table(
        rows,
        margins,
        np.log([sample.us / sample.idle_us for sample in samples]),
        np.array([noise_weight(sample.us, sample.spread_us) for sample in samples]),
        np.array([sample.spread_us / sample.us for sample in samples]),
        tuple(str(sample.conditions.load) for sample in samples),
        constraints(slowdown.NAMES, slowdown.MONOTONE),
    )


def train_slowdown(samples: Sequence[LoadSample], options: TrainingOptions = OPTIONS) -> Slowdown:
    """Train a model of slowdowns.

    Raises
    ------
    LayoutselError
        If there are too few samples.
    """
    if len(samples) < FEWEST:
        raise LayoutselError(
            f"got {len(samples)} samples under load; expected at least {FEWEST} to train on"
        )
    waits = fit_waits(samples)
    boosters, errors = fit_part(slowdown_table(samples, waits), options)
    pair = BoosterPair(boosters.point, boosters.quantiles)
    return Slowdown(
        card=SlowdownCard(
            format_version=slowdown.FORMAT_VERSION,
            version=slowdown.hash_of(pair),
            features=slowdown.NAMES,
            waits=waits,
            samples=len(samples),
            machines=tuple(sorted({one.provenance.profile.machine.fingerprint for one in samples})),
            mape=round(float(np.mean(np.abs(np.expm1(-errors)))), 4),
        ),
        boosters=pair,
    )
