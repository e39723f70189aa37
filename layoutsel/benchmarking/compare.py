"""Interleaved comparison: one process per engine, in rotation, so that noise affects all alike."""

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
from layoutsel.benchmarking.cases import Case, case_name, write_case
from layoutsel.benchmarking.engine import EngineJob, Report
from layoutsel.benchmarking.engines import ENGINES
from layoutsel.benchmarking.racer import EngineError, Racer, start
from layoutsel.core.precision import PrecisionMode, precision_mode
from layoutsel.device.machine import this_machine, versions
from tvm_passes.errors import LayoutselError

SCHEMA_VERSION = 1
"""Version of the document of results."""
_PACKAGES = (
    "layoutsel",
    "apache-tvm",
    "apache-tvm-ffi",
    "onednn-cpu-gomp",
    "onnxruntime",
    "openvino",
    "torch",
    "MNN",
    "ncnn",
    "pnnx",
)
"""Packages whose versions are stored with results."""

OURS = "layoutsel"
"""Engine that the others are compared with."""

SETTLE_S = 0.02
"""Pause between turns, in which the previous engine's threads stop spinning, seconds."""
STOP_LIMIT_S = 30.0
"""Time limit for the end of an engine's process, seconds."""
MOST_RUNS = 500
"""Maximum number of runs per turn."""
LEAST_RUNS = 3
"""Minimum number of runs of a slow engine."""
SLOW_FACTOR = 4
"""Factor of an engine's time budget, which is this times ``rounds * turn_s`` seconds.

An engine that exceeds its budget gets no more turns once it has :data:`LEAST_RUNS` runs.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Result of one engine on one model."""

    model: str
    """Name of the model."""
    engine: str
    """Name of the engine."""
    precision: str
    """Precision that the engine was configured for."""
    threads: int
    """Number of threads."""
    median_ms: float | None = None
    """Median time of an inference, milliseconds."""
    p10_ms: float | None = None
    """10th percentile of the times, milliseconds."""
    p90_ms: float | None = None
    """90th percentile of the times, milliseconds."""
    runs: int = 0
    """Number of timed runs."""
    rel_l2_err: float | None = None
    """Largest relative L2 error of outputs and logits, against ONNX Runtime."""
    accuracy: tuple[Accuracy, ...] = ()
    """Error of each output and of the logits, with its tolerance."""
    load_s: float | None = None
    """Time to load the model, seconds."""
    peak_rss_mb: float | None = None
    """Largest resident memory of the engine's process, MB."""
    settings: str = ""
    """Settings that the engine ran with; empty if there is nothing to state."""
    error: str | None = None
    """Reason of a failure; None if the engine ran the model."""

    def to_json(self) -> dict[str, Any]:
        """Fields of the row, without ``error`` and ``settings`` if they are empty."""
        fields = asdict(self).items()
        return {key: value for key, value in fields if value or key not in ("error", "settings")}


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """Settings of a comparison."""

    engines: tuple[str, ...]
    """Names of the engines."""
    precision: str = "f32"
    """Precision mode."""
    threads: int = 2
    """Number of threads of each engine."""
    rounds: int = 12
    """Number of turns of each engine."""
    turn_s: float = 0.25
    """Duration of one turn without warm-up, seconds."""
    shapes: Mapping[str, tuple[int, ...]] | None = None
    """Shape of each input with a dynamic dimension."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``optimize`` for the engine layoutsel."""
    artifact: Path | None = None
    """Compiled model for the engine layoutsel; compiled first if None."""
    tuning_trials: int = 2000
    """MetaSchedule trials of ``tvm-tuned`` for a model; 2000 take about an hour on two cores."""
    tuning_log: Path | None = None
    """Folder that keeps the trials of ``tvm-tuned``, so that several comparisons share them."""
    allow_external_links: bool = False
    """True if links among a model's external data may lead out of its folder."""


def compare(
    model: str | Path, settings: ComparisonSettings, report: Report = lambda _text: None
) -> list[Row]:
    """Run a model on every engine; an engine that fails gets a row with ``error``.

    Parameters
    ----------
    model
        Path of an ONNX file, or a name such as ``light:resnet50``.
    settings
        Engines and their settings.
    report
        Called with short texts about the progress.

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
            job = _job(case, Path(folder), settings)
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
    """Reject an unknown engine name.

    Raises
    ------
    LayoutselError
        Names the engine.
    """
    for engine in engines:
        if engine not in ENGINES:
            raise LayoutselError(f"unknown engine {engine!r}: expected one of {', '.join(ENGINES)}")


def save(path: Path, rows: Sequence[Row | Mapping[str, Any]]) -> None:
    """Write `rows` as JSON atomically, with machine, versions and date."""
    about = {
        "schema_version": SCHEMA_VERSION,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": str(this_machine()),
        "versions": versions(_PACKAGES),
    }
    entries = [row.to_json() if isinstance(row, Row) else dict(row) for row in rows]
    documents.save({**about, "rows": entries}, path)


def _job(case: Case, workdir: Path, settings: ComparisonSettings) -> EngineJob:
    return EngineJob(
        model=case.model,
        data=case.data,
        threads=settings.threads,
        precision=settings.precision,
        workdir=workdir,
        options=settings.options,
        artifact=settings.artifact,
        tuning_trials=settings.tuning_trials,
        tuning_log=settings.tuning_log,
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
        settings=racer.loaded["settings"],
    )


def _mode(settings: ComparisonSettings) -> PrecisionMode:
    return precision_mode(settings.precision, settings.options.get("max_rel_error"))


def _row(name: str, engine: str, compared: ComparisonSettings, **values: Any) -> Row:
    return Row(
        model=name,
        engine=engine,
        precision=ENGINES[engine].computes_in(compared.precision),
        threads=compared.threads,
        **values,
    )
