"""Engines that `layoutsel bench` compares, in one table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.core.files import write_text
from layoutsel.core.precision import BF16, F32
from layoutsel.references.reference_engine import import_onnxruntime
from tvm_passes.errors import LayoutselError

Report = Callable[[str], None]
"""Function that receives short texts about the progress."""

Run = Callable[[], Sequence[np.ndarray]]
"""Function that runs a loaded model once, on the inputs that it was loaded with."""


@dataclass(frozen=True, kw_only=True)
class EngineJob:
    """A model for an engine to run."""

    model: Path
    """ONNX file with static shapes."""
    threads: int
    """Number of threads."""
    precision: str
    """Precision mode."""
    workdir: Path
    """Folder for files that :attr:`Engine.prepare` writes and :attr:`Engine.load` reads."""
    options: Mapping[str, Any]
    """Options of :func:`layoutsel.optimize` for the engine layoutsel."""
    artifact: Path | None = None
    """Compiled model for the engine layoutsel; compiled first if None."""
    tuning_trials: int = 0
    """MetaSchedule trials of ``tvm-tuned`` for the whole model."""
    tuning_log: Path | None = None
    """Folder that keeps these trials; a later job runs those that are missing."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Functions and properties of one engine."""

    name: str
    """Name on the command line."""
    load: Callable[[EngineJob, Mapping[str, np.ndarray]], Run]
    """Loads a model and its inputs; ``load_s`` is the time of this call."""
    prepare: Callable[[EngineJob, Report], None] | None = None
    """Compiles ahead of time in a separate process, untimed; None if not needed."""
    requires: str | None = None
    """Module that must be installed."""
    computes_in: Callable[[str], str] = str
    """Returns the engine's precision for a precision mode."""

    def unavailable(self) -> str | None:
        """Reason why the engine cannot run here; None if it can."""
        if self.requires and find_spec(self.requires) is None:
            return f"{self.requires} is not installed; pip install 'layoutsel[bench]'"
        return None


def _load_onnxruntime(job: EngineJob, inputs: Mapping[str, np.ndarray]) -> Run:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A path, as users pass it. The file that `write_case` wrote holds all weights, or they are next
    # to it.
    session = onnxruntime.InferenceSession(
        str(job.model), options, providers=["CPUExecutionProvider"]
    )
    feed = dict(inputs)
    return lambda: session.run(None, feed)


def _load_openvino(job: EngineJob, inputs: Mapping[str, np.ndarray]) -> Run:
    import openvino

    config = {
        "INFERENCE_NUM_THREADS": job.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _openvino_hint(job.precision),
    }
    compiled = openvino.Core().compile_model(str(job.model), "CPU", config)
    request = compiled.create_infer_request()
    feed = dict(inputs)
    outputs = compiled.outputs

    def run() -> list[np.ndarray]:
        results = request.infer(feed, share_inputs=True, share_outputs=True)
        return [results[output] for output in outputs]

    return run


def _always_f32(_mode: str) -> str:
    """Precision of an engine that has f32 alone and runs for comparison."""
    return F32


def _openvino_hint(mode: str) -> str:
    """OpenVINO's hint for a mode; it has no error budget, so stricter modes than bf16 mean f32."""
    return BF16 if mode == BF16 else F32


def _prepare_layoutsel(job: EngineJob, report: Report) -> None:
    if job.artifact is not None:
        return
    from layoutsel.api import optimize

    def measured(progress: Any) -> None:
        report(f"layoutsel measures candidates: {progress.done} of {progress.total}")

    options = dict(job.options)
    optimize(
        job.model, threads=job.threads, precision=job.precision, progress=measured, **options
    ).save(job.workdir / "layoutsel.so")


def _load_layoutsel(job: EngineJob, inputs: Mapping[str, np.ndarray]) -> Run:
    from layoutsel.runtime.loading import load

    model = load(job.artifact or job.workdir / "layoutsel.so")
    if model.threads != job.threads:
        raise LayoutselError(
            f"{job.artifact} is for {model.threads} threads; expected {job.threads}"
        )
    bound = model.bind(**inputs)
    return lambda: model.run_all(bound)


def _prepare_tvm(job: EngineJob, *, trials: int = 0) -> None:
    import tvm
    from tvm import relax

    from layoutsel.model import import_model
    from layoutsel.runtime.linking import export_library
    from tvm_passes.cpu import host_target

    imported = import_model(job.model)
    module, target = imported.module, host_target()
    if trials:
        log = (job.tuning_log or job.workdir) / f"metaschedule-{imported.content_hash[:16]}"
        log.mkdir(parents=True, exist_ok=True)
        missing = max(0, trials - _trials_in(log))
        tune = relax.get_pipeline(
            "static_shape_tuning", total_trials=missing, target=target, work_dir=str(log)
        )
        module = tune(module)
    export_library(tvm.compile(module, target), job.workdir / "tvm.so")


def _trials_in(log: Path) -> int:
    """Number of trials in a folder of MetaSchedule, which writes a line for each.

    A line that an ended process left unfinished is removed: MetaSchedule refuses the whole file.
    """
    records = log / "database_tuning_record.json"
    if not records.exists():
        return 0
    lines = records.read_text(encoding="utf-8", errors="replace").splitlines()
    whole = [line for line in lines if _is_json(line)]
    if len(whole) < len(lines):
        write_text(records, "".join(f"{line}\n" for line in whole))
    return len(whole)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _load_tvm(job: EngineJob, inputs: Mapping[str, np.ndarray]) -> Run:
    import tvm
    from tvm import relax

    from layoutsel.device.threads import set_threads

    set_threads(job.threads)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(job.workdir / "tvm.so")), tvm.cpu())
    main = machine["main"]
    tensors = [tvm.runtime.tensor(value) for value in inputs.values()]

    def run() -> list[np.ndarray]:
        result = main(*tensors)
        fields = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        return [field.numpy() for field in fields]

    return run


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(name="layoutsel", prepare=_prepare_layoutsel, load=_load_layoutsel),
        Engine(
            name="onnxruntime",
            load=_load_onnxruntime,
            requires="onnxruntime",
            computes_in=_always_f32,
        ),
        Engine(
            name="openvino",
            load=_load_openvino,
            requires="openvino",
            computes_in=_openvino_hint,
        ),
        Engine(
            name="tvm",
            prepare=lambda job, _report: _prepare_tvm(job),
            load=_load_tvm,
            computes_in=_always_f32,
        ),
        Engine(
            name="tvm-tuned",
            prepare=lambda job, _report: _prepare_tvm(job, trials=job.tuning_trials),
            load=_load_tvm,
            computes_in=_always_f32,
        ),
    )
}
"""Engines by the names that ``--against`` takes."""
