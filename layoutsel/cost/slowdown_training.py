"""Training of the model of slowdowns; deterministic, within seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from scipy.optimize import least_squares

from layoutsel.core.workload import Estimate
from layoutsel.cost.samples import LoadSample
from layoutsel.cost.slowdown import LoadedRun, Sharing, Slowdown
from layoutsel.cost.training import FEWEST
from tvm_passes.errors import LayoutselError

_START = Sharing(crowd=0.1, even=0.2, apart=1.4)
"""Coefficients from which the fit begins."""
_LEAST = Sharing(crowd=1e-3, even=1e-3, apart=1.0)
_MOST = Sharing(crowd=1.0, even=2.0, apart=10.0)
"""Ranges of the coefficients."""
_OUTLIER = 0.3
"""Error of a logarithm from which on samples count less than by its square."""


def run_of(sample: LoadSample) -> LoadedRun:
    """Make the run of a sample, with its measured time without load."""
    cost = sample.workload.cost(Estimate(sample.idle_us), sample.decision)
    return LoadedRun.of(cost, sample.conditions, sample.conditions)


def fit_sharing(samples: Sequence[LoadSample]) -> Sharing:
    """Fit the coefficients by least squares of logarithms."""
    runs = [run_of(sample) for sample in samples]
    names = list(asdict(_START))
    start, least, most = (np.log([*asdict(one).values()]) for one in (_START, _LEAST, _MOST))

    def sharing(values: np.ndarray) -> Sharing:
        return Sharing(**dict(zip(names, map(float, np.exp(values)), strict=True)))

    targets = np.log([sample.us / sample.idle_us for sample in samples])

    def errors(values: np.ndarray) -> np.ndarray:
        model = sharing(values)
        return np.array([model.log_factor(run) for run in runs]) - targets

    found = least_squares(errors, start, bounds=(least, most), loss="soft_l1", f_scale=_OUTLIER)
    return Sharing(**{name: round(value, 4) for name, value in asdict(sharing(found.x)).items()})


def train_slowdown(samples: Sequence[LoadSample]) -> Slowdown:
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
    left_out = _left_out(samples)
    is_serial = np.array([run_of(sample).is_serial for sample in samples])
    is_busy = np.array([max(run_of(sample).demands, default=0.0) > 0 for sample in samples])
    return Slowdown(
        sharing=fit_sharing(samples),
        serial_error=_half_range(left_out[is_serial & is_busy]),
        error=_half_range(left_out[~is_serial]),
        samples=len(samples),
        machines=tuple(sorted({one.provenance.profile.machine.fingerprint for one in samples})),
        mape=round(float(np.mean(np.abs(np.expm1(left_out)))), 4),
    )


def _left_out(samples: Sequence[LoadSample]) -> np.ndarray:
    """Predicted less measured logarithms of the samples of each load, by models of the others."""
    loads = [str(sample.conditions.load) for sample in samples]
    found = np.zeros(len(samples))
    for load in dict.fromkeys(loads):
        others = [one for one, of in zip(samples, loads, strict=True) if of != load] or samples
        sharing = fit_sharing(others)
        for number in [n for n, of in enumerate(loads) if of == load]:
            one = samples[number]
            found[number] = sharing.log_factor(run_of(one)) - np.log(one.us / one.idle_us)
    return found


def _half_range(errors: np.ndarray) -> float:
    """Half the interquartile range; 0 of nothing."""
    if not len(errors):
        return 0.0
    return round(float(np.subtract(*np.percentile(errors, [75, 25])) / 2), 4)
