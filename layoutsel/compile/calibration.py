"""Calibration: adaptation of the shipped cost model to this machine within a minute."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layoutsel.compile.measuring import request_for, worker_of
from layoutsel.compile.offers import Offers
from layoutsel.compile.options import OnProgress
from layoutsel.compile.session import Session
from layoutsel.core.workload import Cost
from layoutsel.cost import adapt, features
from layoutsel.cost.corrections import Adaptation, basis
from layoutsel.cost.learned import LearnedCost
from layoutsel.cost.measured import PricingProgress, Request, run_in
from layoutsel.cost.model import Question
from layoutsel.cost.peaks import machine_peaks
from layoutsel.device.outcome import Timing
from layoutsel.zoo.sweep import sweep_module
from tvm_passes.errors import LayoutselError

POOL = 60
"""Number of sub-graphs to choose candidates from."""
_SLOWEST_US = 20_000.0
"""Maximum predicted time of measured candidates, microseconds."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Result of a calibration."""

    measurements: int
    """Number of measured candidates."""
    seconds: float
    """Duration of probing, choosing, measuring and fitting, seconds."""
    error_before: float
    """Mean absolute error of the predictions, natural logarithm of time."""
    error_after: float
    """Mean absolute error after the correction, fitted without the respective candidate."""
    file: str
    """Path of the file with the correction."""


def calibrate(
    *,
    threads: int | None = None,
    units: Sequence[str] | None = None,
    most: int = 50,
    limit_s: float = 45.0,
    cost_model: Path | None = None,
    progress: OnProgress | None = None,
    seed: int = 0,
) -> Calibration:
    """Measure a few candidates and store the correction of the cost model that follows from them.

    Parameters
    ----------
    threads
        Number of threads; by default all cores of this process.
    units
        Units to calibrate; by default all available ones.
    most
        Maximum number of measurements.
    limit_s
        Time limit, seconds.
    cost_model
        Folder of the cost model; by default the shipped one.
    progress
        Called after every measurement.
    seed
        Seed of the sub-graphs.

    Raises
    ------
    LayoutselError
        If fewer than four candidates could be measured.
    """
    started = time.monotonic()
    session = Session.open(
        sweep_module(POOL, seed=seed), units=units, threads=threads, cost_model=cost_model
    )
    machine_peaks(session.threads)
    offers = Offers.of(session)
    plain = LearnedCost(offers.costs.learned.model, offers.costs.profile)
    asked = _pool(offers, plain)
    chosen = adapt.most_informative(
        [row for _, _, row in asked], [request.decision.unit for request, _, _ in asked], most
    )
    observations = []
    with worker_of(session) as worker:
        run = run_in(worker)
        for done, position in enumerate(chosen, start=1):
            if time.monotonic() - started > limit_s:
                break
            request, predicted, row = asked[position]
            outcome = run(request)
            if progress is not None:
                progress(
                    PricingProgress(done=done, total=len(chosen), request=request, outcome=outcome)
                )
            if isinstance(outcome, Timing) and outcome.us > 0:
                error = float(np.log(outcome.us / predicted))
                observations.append(adapt.Observation(request.decision.unit, row, error))
    if len(observations) < 4:
        raise LayoutselError(
            f"only {len(observations)} candidates could be measured in {limit_s:g} s; "
            "allow more time"
        )
    file = adapt.adaptation_file(offers.costs.profile)
    adaptation, error_after = useful(observations)
    adapt.save(adaptation, offers.costs.learned.model.version, file)
    return Calibration(
        measurements=len(observations),
        seconds=time.monotonic() - started,
        error_before=float(np.mean([abs(o.error) for o in observations])),
        error_after=error_after,
        file=str(file),
    )


def useful(observations: Sequence[adapt.Observation]) -> tuple[Adaptation, float]:
    """Fit the correction, and keep it for units whose held-out errors it reduces.

    Returns
    -------
    tuple
        Correction, and the remaining mean absolute error, natural logarithm of time.
    """
    before, after = [abs(o.error) for o in observations], held_out_errors(observations)
    weights, left = dict(adapt.fit(observations).weights), []
    for unit, found in weights.items():
        mine = [n for n, o in enumerate(observations) if o.unit == unit]
        plain, corrected = ([errors[n] for n in mine] for errors in (before, after))
        if sum(corrected) >= sum(plain):
            weights[unit] = (0.0,) * len(found)
        left += min(plain, corrected, key=sum)
    return Adaptation(weights), float(np.mean(left))


def held_out_errors(observations: Sequence[adapt.Observation]) -> list[float]:
    """Compute the absolute error of each observation after a correction fitted to the others."""
    left = []
    for position, observation in enumerate(observations):
        others = [o for n, o in enumerate(observations) if n != position]
        weights = adapt.fit(others).weights.get(observation.unit)
        correction = float(basis(observation.row) @ np.array(weights)) if weights else 0.0
        left.append(abs(observation.error - correction))
    return left


def _pool(offers: Offers, plain: LearnedCost) -> list[tuple[Request, float, np.ndarray]]:
    """List candidates with their predictions, microseconds, and features."""
    offered = [
        (subgraph, offers.workloads[subgraph.id], decision)
        for subgraph in offers.session.graph.subgraphs
        for decision in offers.candidates[subgraph.id].decisions
    ]
    pool = []
    prices = plain.subgraphs([Question(work, decision) for _, work, decision in offered])
    for (subgraph, work, decision), price in zip(offered, prices, strict=True):
        if isinstance(price, Cost) and price.source == "learned" and price.us < _SLOWEST_US:
            row = features.features(features.PricingQuestion(work, decision, offers.costs.profile))
            pool.append((request_for(offers, subgraph, decision), price.us, row))
    return pool
