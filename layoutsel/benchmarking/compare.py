"""Interleaved comparison: one process per engine, turns in rotation, so that noise hits all alike."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from layoutsel.benchmarking import worker
from layoutsel.benchmarking.engines import ENGINES, Job
from layoutsel.model import import_model
from layoutsel.runtime.verify import onnx_logits, onnxruntime_reference, random_inputs
from tvm_passes.errors import LayoutselError

SETTLE_S = 0.02
"""Pause between turns: thread pools of the engine before stop spinning."""
PREPARE_LIMIT_S = 3 * 3600
LOAD_LIMIT_S = 900


@dataclass(frozen=True, kw_only=True)
class Row:
    """One engine on one model; ``error`` where it could not run it."""

    model: str
    engine: str
    precision: str
    threads: int
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    runs: int = 0
    rel_l2_err: float | None = None
    """Worst relative L2 error over the outputs and the logits before a final softmax, against ONNX Runtime."""
    load_s: float | None = None
    peak_rss_mb: float | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Without ``error`` where there is none."""
        return {key: value for key, value in asdict(self).items() if key != "error" or value}


@dataclass(frozen=True, kw_only=True)
class Settings:
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


@dataclass
class _Racer:
    engine: str
    process: multiprocessing.process.BaseProcess
    connection: Connection
    loaded: dict[str, float]
    times_ms: list[float] = field(default_factory=list)
    runs_per_turn: int = 3


def compare(
    model: str | Path, settings: Settings, progress: Callable[[str], None] = lambda _text: None
) -> list[Row]:
    """Run `model` on every engine of `settings`; an engine that fails gets a row with ``error``.

    Raises
    ------
    LayoutselError
        If an engine is unknown, or the model cannot be imported.
    """
    unknown = [name for name in settings.engines if name not in ENGINES]
    if unknown:
        raise LayoutselError(
            f"unknown engine {unknown[0]!r}: expected one of {', '.join(ENGINES)}"
        )
    name = str(model).removeprefix("light:").split("/")[-1].removesuffix(".onnx")
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder)
        progress(f"{name}: importing")
        data, file = _write_case(model, settings, workdir)
        racers: list[_Racer] = []
        rows: list[Row] = []
        for engine in settings.engines:
            progress(f"{name}: preparing {engine}")
            job = Job(
                model=file,
                threads=settings.threads,
                precision=settings.precision,
                workdir=workdir,
                options=settings.options,
            )
            racer = _start(engine, job, data)
            if isinstance(racer, str):
                rows.append(_row(name, engine, settings, error=racer))
            else:
                racers.append(racer)
        progress(f"{name}: timing {', '.join(racer.engine for racer in racers)}")
        _race(racers, settings)
        rows += [_finished(name, racer, settings) for racer in racers]
    order = {engine: index for index, engine in enumerate(settings.engines)}
    return sorted(rows, key=lambda row: order[row.engine])


def save(path: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Write rows as JSON, atomically; `about` names machine, versions and date."""
    body = {"schema_version": 1, **about, "rows": [row.to_json() for row in rows]}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(body, indent=1) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise LayoutselError(f"cannot write {path}: {error.strerror}") from error


def _write_case(model: str | Path, settings: Settings, workdir: Path) -> tuple[Path, Path]:
    imported = import_model(model, shapes=settings.shapes)
    if imported.onnx is None:
        raise LayoutselError(f"{model}: peers need an ONNX model; got a Relax module")
    inputs = random_inputs(imported.inputs)
    feed = {spec.name: value for spec, value in zip(imported.inputs, inputs, strict=True)}
    expected = onnxruntime_reference(imported.onnx, feed)
    exposed = onnx.ModelProto()
    exposed.CopyFrom(imported.onnx)
    inferred = {value.name: value for value in imported.onnx.graph.value_info}
    for tensor in onnx_logits(imported.onnx):
        known = inferred.get(tensor)
        exposed.graph.output.append(known if known else _float_value(tensor))
    file = workdir / "model.onnx"
    onnx.save(exposed, file)
    data = workdir / "data.npz"
    arrays = {f"in:{key}": value for key, value in feed.items()}
    arrays |= {f"out{index:03d}": value for index, value in enumerate(expected)}
    np.savez(data, **arrays)
    return data, file


def _float_value(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


def _spawn(target: Callable[..., None], *arguments: Any) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _answer(process: Any, connection: Connection, limit_s: float) -> Any:
    try:
        if connection.poll(limit_s):
            return connection.recv()
        process.kill()
        return f"TimeoutError: no answer within {limit_s:.0f} s"
    except (EOFError, OSError):
        process.join()
        return f"the engine's process died with exit code {process.exitcode}"


def _start(engine: str, job: Job, data: Path) -> _Racer | str:
    if reason := ENGINES[engine].unavailable():
        return reason
    process, connection = _spawn(worker.prepare, engine, job)
    answer = _answer(process, connection, PREPARE_LIMIT_S)
    process.join()
    if answer is not None:
        return str(answer)
    process, connection = _spawn(worker.serve, engine, job, data)
    answer = _answer(process, connection, LOAD_LIMIT_S)
    if isinstance(answer, str):
        return answer
    return _Racer(engine, process, connection, answer)


def _race(racers: list[_Racer], settings: Settings) -> None:
    for racer in racers:
        racer.connection.send(1)
        once_ms = racer.connection.recv()[0]
        racer.runs_per_turn = max(2, min(500, int(1e3 * settings.turn_s / once_ms)))
    for round_ in range(settings.rounds):
        for racer in racers if round_ % 2 else reversed(racers):
            time.sleep(SETTLE_S)
            racer.connection.send(racer.runs_per_turn)
            racer.times_ms += racer.connection.recv()


def _finished(name: str, racer: _Racer, settings: Settings) -> Row:
    racer.connection.send(None)
    peak = racer.connection.recv()
    racer.process.join()
    deciles = statistics.quantiles(racer.times_ms, n=10)
    return _row(
        name,
        racer.engine,
        settings,
        median_ms=round(statistics.median(racer.times_ms), 4),
        p10_ms=round(deciles[0], 4),
        p90_ms=round(deciles[-1], 4),
        runs=len(racer.times_ms),
        rel_l2_err=racer.loaded["rel_l2_err"],
        load_s=round(racer.loaded["load_s"], 3),
        peak_rss_mb=round(peak, 1),
    )


def _row(name: str, engine: str, settings: Settings, **values: Any) -> Row:
    return Row(
        model=name, engine=engine, precision=settings.precision, threads=settings.threads, **values
    )
