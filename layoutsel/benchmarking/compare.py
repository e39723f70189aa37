"""Interleaved comparison: one process per engine, turns in rotation, so that noise hits all alike."""

from __future__ import annotations

import datetime
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from layoutsel import documents
from layoutsel.benchmarking.accuracy import Accuracy, Compared, judged
from layoutsel.benchmarking.cases import case_name, write_case
from layoutsel.benchmarking.engines import ENGINES, EngineJob
from layoutsel.benchmarking.racer import EngineError, Racer, Report, start
from layoutsel.core.precision import PrecisionMode, precision_mode
from layoutsel.device.machine import this_machine, versions
from tvm_passes.errors import LayoutselError

SCHEMA_VERSION = 1
_PACKAGES = (
    "layoutsel",
    "apache-tvm",
    "apache-tvm-ffi",
    "onednn-cpu-gomp",
    "onnxruntime",
    "openvino",
)
"""Whose versions results are kept with."""

OURS = "layoutsel"
"""The engine that the others are compared with."""

SETTLE_S = 0.02
"""Pause between turns: thread pools of the engine before stop spinning."""
STOP_LIMIT_S = 30.0
MOST_RUNS = 500
LEAST_RUNS = 3
"""A slow engine makes at least so many runs, and no more turns than…"""
SLOW_FACTOR = 4
"""…so many times what its turns should take."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One engine on one model; ``error`` where it could not run it."""

    model: str
    engine: str
    precision: str
    """What the engine computes in, as it was asked to."""
    threads: int
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    runs: int = 0
    rel_l2_err: float | None = None
    """Worst relative L2 error over the outputs and the logits before a final softmax, against ONNX Runtime."""
    accuracy: tuple[Accuracy, ...] = ()
    """The error of each of them, with its tolerance."""
    load_s: float | None = None
    peak_rss_mb: float | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Without ``error`` where there is none."""
        return {key: value for key, value in asdict(self).items() if key != "error" or value}


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """How to compare."""

    engines: tuple[str, ...]
    precision: str = "f32"
    threads: int = 2
    rounds: int = 12
    """Turns per engine."""
    turn_s: float = 0.25
    """Seconds of one turn, warm-up excluded."""
    shapes: Mapping[str, tuple[int, ...]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``optimize`` for the engine layoutsel."""
    artifact: Path | None = None
    """A compiled model for the engine layoutsel to load, instead of compiling one."""
    tuning_trials: int = 2000
    """MetaSchedule trials of ``tvm-tuned`` for a whole model; two thousand take about an hour on two cores."""
    allow_external_links: bool = False
    """True if links among a model's external data may lead out of its folder."""


def compare(
    model: str | Path, settings: ComparisonSettings, report: Report = lambda _text: None
) -> list[Row]:
    """Run `model` on every engine of `settings`; an engine that fails gets a row with ``error``.

    Raises
    ------
    LayoutselError
        If an engine is unknown, or the model cannot be read.
    """
    check_engines(settings.engines)
    name = case_name(model)
    racers: list[Racer] = []
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="layoutsel-bench-") as folder:
        try:
            case = write_case(
                model,
                settings.shapes,
                Path(folder),
                allow_external_links=settings.allow_external_links,
            )
            job = _job(case.model, Path(folder), settings)
            for engine in settings.engines:
                try:
                    racers.append(start(engine, job, case.data, report))
                except EngineError as error:
                    failures[engine] = str(error)
            report("timing")
            _race(racers, settings)
            rows = {r.engine: _finished(name, r, settings, case.compared) for r in racers}
        finally:
            for racer in racers:
                racer.process.close()
    rows |= {engine: _row(name, engine, settings, error=e) for engine, e in failures.items()}
    return [rows[engine] for engine in settings.engines]


def check_engines(engines: Sequence[str]) -> None:
    """Refuse an engine that is not in the table.

    Raises
    ------
    LayoutselError
        Names it.
    """
    for engine in engines:
        if engine not in ENGINES:
            raise LayoutselError(f"unknown engine {engine!r}: expected one of {', '.join(ENGINES)}")


def save(path: Path, rows: Sequence[Row | Mapping[str, Any]]) -> None:
    """Write `rows` as JSON, whole or not at all, with machine, versions and date."""
    about = {
        "schema_version": SCHEMA_VERSION,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": str(this_machine()),
        "versions": versions(_PACKAGES),
    }
    entries = [row.to_json() if isinstance(row, Row) else dict(row) for row in rows]
    documents.save({**about, "rows": entries}, path)


def _job(file: Path, workdir: Path, settings: ComparisonSettings) -> EngineJob:
    return EngineJob(
        model=file,
        threads=settings.threads,
        precision=settings.precision,
        workdir=workdir,
        options=settings.options,
        artifact=settings.artifact,
        tuning_trials=settings.tuning_trials,
    )


def _race(racers: Sequence[Racer], settings: ComparisonSettings) -> None:
    for racer in racers:
        once_ms = min(racer.turn(1), default=0.0)
        if racer.error is None:
            runs = int(1e3 * settings.turn_s / max(once_ms, 1e-3))
            racer.runs_per_turn = max(1, min(MOST_RUNS, runs))
    budget_s = SLOW_FACTOR * settings.rounds * settings.turn_s
    for round_ in range(settings.rounds):
        for racer in racers if round_ % 2 else reversed(racers):
            is_slow = racer.spent_s > budget_s and len(racer.times_ms) >= LEAST_RUNS
            if racer.error is None and not is_slow:
                time.sleep(SETTLE_S)
                racer.times_ms += racer.turn(racer.runs_per_turn)


def _finished(
    name: str, racer: Racer, settings: ComparisonSettings, results: Sequence[Compared]
) -> Row:
    peak_mb = 0.0
    if racer.error is None:
        try:
            peak_mb = racer.process.ask(None, STOP_LIMIT_S)
        except EngineError as error:
            racer.error = str(error)
    if racer.error is not None or not racer.times_ms:
        return _row(name, racer.engine, settings, error=racer.error or "no run finished")
    times = racer.times_ms if len(racer.times_ms) > 1 else 2 * racer.times_ms
    deciles = statistics.quantiles(times, n=10, method="inclusive")
    return _row(
        name,
        racer.engine,
        settings,
        median_ms=round(statistics.median(times), 4),
        p10_ms=round(deciles[0], 4),
        p90_ms=round(deciles[-1], 4),
        runs=len(racer.times_ms),
        rel_l2_err=max(racer.loaded["errors"], default=None),
        accuracy=judged(results, racer.loaded["errors"], _mode(settings)),
        load_s=round(racer.loaded["load_s"], 3),
        peak_rss_mb=round(peak_mb, 1),
    )


def _mode(settings: ComparisonSettings) -> PrecisionMode:
    return precision_mode(settings.precision, settings.options.get("max_rel_error"))


def _row(name: str, engine: str, settings: ComparisonSettings, **values: Any) -> Row:
    return Row(
        model=name,
        engine=engine,
        precision=ENGINES[engine].computes_in(settings.precision),
        threads=settings.threads,
        **values,
    )
