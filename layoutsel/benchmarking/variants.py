"""Engines with several settings: the fastest correct one is chosen before the comparison."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel import documents
from layoutsel.benchmarking.case_data import read_case_data
from layoutsel.benchmarking.engine import Engine, EngineJob, Report, Run
from layoutsel.core.precision import precision_mode
from layoutsel.runtime.samples import rel_l2_err
from tvm_passes.errors import LayoutselError

ROUNDS = 5
"""Number of turns of each variant."""
TURN_S = 0.1
"""Duration of a turn, seconds; at least one run."""
SETTLE_S = 0.02
"""Pause between turns, in which the previous variant's threads stop spinning, seconds."""
WRONG_FACTOR = 100.0
"""Smallest error of wrong results, as a multiple of the precision mode's tolerance."""
LARGEST_ERROR = 0.5
"""Upper bound of that error, as tolerances of narrow precisions are wide."""

Settings = Mapping[str, Any]
"""Settings of an engine by name."""
LoadVariant = Callable[[EngineJob, Mapping[str, np.ndarray], Settings], Run]
"""Loads a model and its inputs with some settings."""


@dataclass(frozen=True, kw_only=True)
class ChosenVariant:
    """The chosen variant of an engine, with the times of all variants."""

    chosen: str
    """Name of the fastest variant."""
    median_ms: Mapping[str, float]
    """Median time of each variant, milliseconds."""
    left_out: Mapping[str, str]
    """Reason against each variant that failed or whose results are wrong."""

    def __str__(self) -> str:
        others = [
            f"{name} ({ms:.3g} ms)" for name, ms in self.median_ms.items() if name != self.chosen
        ]
        others += [f"{name} (left out: {reason})" for name, reason in self.left_out.items()]
        rest = f", instead of {', '.join(others)}" if others else ""
        return f"{self.chosen} ({self.median_ms[self.chosen]:.3g} ms){rest}"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One choice of settings of an engine."""

    name: str
    """Short description, in the terms of the engine's documentation."""
    settings: Settings
    """Settings that :data:`LoadVariant` understands."""


def best_of(
    name: str,
    variants: Sequence[Variant],
    load: LoadVariant,
    *,
    convert: Callable[[EngineJob, Report], None] | None = None,
    **properties: Any,
) -> Engine:
    """Make an engine that runs the fastest of `variants` whose results are right.

    Parameters
    ----------
    name
        Name on the command line.
    variants
        Settings to choose among.
    load
        Loads a model with the settings of a variant.
    convert
        Converts the model ahead of time; None if not needed.
    **properties
        Other fields of :class:`Engine`.
    """
    by_name = {variant.name: variant for variant in variants}

    def prepare(job: EngineJob, report: Report) -> None:
        if convert is not None:
            convert(job, report)
        documents.save(_choose(name, variants, load, job, report), _file(name, job))

    def load_chosen(job: EngineJob, inputs: Mapping[str, np.ndarray]) -> Run:
        return load(job, inputs, by_name[_choice(name, job).chosen].settings)

    return Engine(
        name=name,
        load=load_chosen,
        prepare=prepare,
        settings=functools.partial(_stated, name),
        **properties,
    )


def _choose(
    name: str, variants: Sequence[Variant], load: LoadVariant, job: EngineJob, report: Report
) -> ChosenVariant:
    """Load all variants, check their results and time them in turns."""
    if job.data is None:
        raise LayoutselError(f"{name} needs inputs to choose its settings; expected a data file")
    inputs, expected = read_case_data(job.data)
    runs: dict[str, Run] = {}
    left_out: dict[str, str] = {}
    for variant in variants:
        report(f"{name}: {variant.name}")
        try:
            run = load(job, inputs, variant.settings)
            _check(run(), expected, job)
            runs[variant.name] = run
        except Exception as error:
            left_out[variant.name] = (str(error).strip().splitlines() or [repr(error)])[0]
    if not runs:
        reasons = "; ".join(f"{one}: {reason}" for one, reason in left_out.items())
        raise LayoutselError(f"{name} cannot run the model: {reasons}")
    times = race_variants(runs)
    return ChosenVariant(
        chosen=min(times, key=lambda one: times[one]),
        median_ms={one: round(ms, 4) for one, ms in times.items()},
        left_out=left_out,
    )


def race_variants(runs: Mapping[str, Run]) -> dict[str, float]:
    """Median time of each function, in turns, milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(ROUNDS):
        for name in list(runs)[:: -1 if round_ % 2 else 1]:
            time.sleep(SETTLE_S)
            runs[name]()
            end = time.perf_counter() + TURN_S
            while not times[name] or time.perf_counter() < end:
                start = time.perf_counter()
                runs[name]()
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def _check(results: Sequence[np.ndarray], expected: Sequence[np.ndarray], job: EngineJob) -> None:
    """Raise an error if `results` are wrong, beyond errors of rounding."""
    if len(results) < len(expected):
        raise LayoutselError(f"got {len(results)} outputs; expected {len(expected)}")
    pairs = zip(results, expected, strict=False)
    error = max((rel_l2_err(got, want) for got, want in pairs), default=0.0)
    most = WRONG_FACTOR * precision_mode(job.precision).tolerance
    if error > min(most, LARGEST_ERROR):
        raise LayoutselError(f"wrong results: relative L2 error {error:.1e}")


def _file(name: str, job: EngineJob) -> Path:
    return job.workdir / f"{name}-variants.json"


def _choice(name: str, job: EngineJob) -> ChosenVariant:
    file = _file(name, job)
    return documents.from_json(ChosenVariant, documents.load_json(file), file=str(file))


def _stated(name: str, job: EngineJob) -> str:
    return str(_choice(name, job))
