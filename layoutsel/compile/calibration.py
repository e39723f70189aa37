"""Calibration: adaptation of the shipped cost model to this machine within a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layoutsel.compile.cost_sources import CostSources
from layoutsel.compile.measuring import request_for, worker_of
from layoutsel.compile.offers import Offers
from layoutsel.compile.options import OnProgress
from layoutsel.compile.session import Session
from layoutsel.core.choices import PREDICTED
from layoutsel.core.workload import Cost
from layoutsel.cost import adapt, features
from layoutsel.cost.corrections import NOISE, Adaptation, Traits
from layoutsel.cost.learned import LearnedCost
from layoutsel.cost.measured import PricingProgress, Request, run_in
from layoutsel.cost.model import Question
from layoutsel.cost.peaks import IDLE_SHARE, machine_peaks, probe
from layoutsel.device.outcome import Timing
from layoutsel.zoo.sweep import sweep_module
from tvm_passes.errors import LayoutselError

POOL = 50
"""Number of sub-graphs to choose candidates from."""
MOST = 120
"""Default maximum number of measurements."""
LIMIT_S = 45.0
"""Default time limit of measuring, seconds."""
FEWEST = 4
"""Minimum number of measurements."""
_SLOWEST_US = 20_000.0
"""Maximum predicted time of measured candidates, microseconds."""
_ATTEMPTS, _PAUSE_S = 3, 3.0
"""Number of probes for an idle machine, and the pause between them, seconds."""
_BUSY_NOISE = 2.0
"""Factor on the noise of measurements on a busy machine."""

logger = logging.getLogger(__name__)


class BusyMachine(LayoutselError):
    """Other processes compute, so that measurements would not describe the machine."""


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


def calibrate_first(session: Session) -> None:
    """Calibrate before the first compilation on a machine that the cost model does not know.

    A failure, or a machine that stays busy, gives a warning.
    """
    options = session.options
    if not options.calibrate or options.cost not in PREDICTED or session.machine:
        return
    if CostSources(session).learned.knows_machine:
        return
    logger.warning(
        "the cost model has not seen this machine with %d threads: adapting it, once, takes "
        "about a minute; --no-calibrate leaves it out",
        session.threads,
    )
    try:
        done = calibrate(threads=session.threads, cost_model=options.cost_model, needs_idle=True)
    except LayoutselError as error:
        logger.warning("not calibrated: %s; `layoutsel calibrate` tries again", error)
    else:
        logger.warning(
            "calibrated by %d measurements in %.0f s: mean error %.0f %% before, %.0f %% after",
            *(done.measurements, done.seconds),
            *(100 * done.error_before, 100 * done.error_after),
        )


def calibrate(
    *,
    threads: int | None = None,
    units: Sequence[str] | None = None,
    most: int = MOST,
    limit_s: float = LIMIT_S,
    cost_model: Path | str | None = None,
    progress: OnProgress | None = None,
    seed: int = 0,
    needs_idle: bool = False,
) -> Calibration:
    """Measure a few candidates and store the correction of the cost model that follows from them.

    On a busy machine, the correction is smaller and less certain.

    Parameters
    ----------
    threads
        Number of threads; by default all cores of this process.
    units
        Units to calibrate; by default all available ones.
    most
        Maximum number of measurements.
    limit_s
        Time limit of measuring, seconds.
    cost_model
        Folder of the cost model; by default the shipped one.
    progress
        Called after every measurement.
    seed
        Seed of the sub-graphs.
    needs_idle
        True to refuse a busy machine.

    Raises
    ------
    BusyMachine
        If `needs_idle`, and other processes compute.
    LayoutselError
        If fewer than four candidates could be measured.
    """
    started = time.monotonic()
    session = Session.open(
        sweep_module(POOL, seed=seed),
        precision="auto",
        units=units,
        threads=threads,
        cost_model=cost_model,
    )
    machine_peaks(session.threads)
    offers = Offers.of(session)
    plain = LearnedCost(offers.costs.learned.model, offers.costs.profile)
    requests, traits = _pool(offers, plain)
    chosen = adapt.most_informative(traits, most)
    noise = _noise(session.threads, needs_idle=needs_idle)
    kept, errors = list[int](), list[float]()
    deadline = time.monotonic() + limit_s
    with worker_of(session) as worker:
        run = run_in(worker)
        for done, position in enumerate(chosen, start=1):
            if time.monotonic() >= deadline:
                break
            request, predicted_us = requests[position]
            outcome = run(request)
            if progress is not None:
                progress(
                    PricingProgress(done=done, total=len(chosen), request=request, outcome=outcome)
                )
            if isinstance(outcome, Timing) and outcome.us > 0:
                kept.append(position)
                errors.append(float(np.log(outcome.us / predicted_us)))
    if len(errors) < FEWEST:
        raise LayoutselError(
            f"only {len(errors)} candidates could be measured in {limit_s:g} s; "
            f"expected at least {FEWEST}: allow more time"
        )
    file = adapt.adaptation_file(offers.costs.profile)
    adaptation, error_after = adapt.useful(Adaptation(traits.take(kept), tuple(errors), noise))
    adapt.save(adaptation, plain.model.version, file)
    return Calibration(
        measurements=len(errors),
        seconds=time.monotonic() - started,
        error_before=float(np.mean(np.abs(errors))),
        error_after=error_after,
        file=str(file),
    )


def _noise(threads: int, *, needs_idle: bool) -> float:
    """Wait a little for an idle machine; return the noise to expect of measurements."""
    for attempt in range(_ATTEMPTS):
        share = probe(threads).cpu_share
        if share >= IDLE_SHARE:
            return NOISE
        if attempt + 1 < _ATTEMPTS:
            time.sleep(_PAUSE_S)
    busy = f"other processes take {100 * (1 - share):.0f} % of the processor"
    if needs_idle:
        raise BusyMachine(busy)
    logger.warning("%s: the correction will be smaller and less certain", busy)
    return NOISE * _BUSY_NOISE


def _pool(offers: Offers, plain: LearnedCost) -> tuple[list[tuple[Request, float]], Traits]:
    """List candidates with their predictions, microseconds, and their traits."""
    offered = [
        (subgraph, decision)
        for subgraph in offers.session.graph.subgraphs
        for decision in offers.candidates[subgraph.id].decisions
    ]
    questions = [Question(offers.workloads[one.id], decision) for one, decision in offered]
    pool, rows = list[tuple[Request, float]](), list[np.ndarray]()
    for asked, price, (one, decision) in zip(
        questions, plain.subgraphs(questions), offered, strict=True
    ):
        if isinstance(price, Cost) and price.source == "learned" and price.us < _SLOWEST_US:
            pool.append((request_for(offers, one, decision), price.us))
            question = features.PricingQuestion(asked.workload, decision, plain.profile)
            rows.append(features.features(question)[: len(features.NAMES)])
    if not pool:
        raise LayoutselError("the cost model predicts no candidate of these units on this machine")
    units = [request.decision.unit for request, _ in pool]
    return pool, Traits.of(units, np.stack(rows), np.log([us for _, us in pool]))
