"""Stock TVM: its default pipeline, and tuned by MetaSchedule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from layoutsel.benchmarking.engine import Engine, EngineJob, Run, always_f32
from layoutsel.core.files import write_text


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


STOCK_TVM = Engine(
    name="tvm",
    prepare=lambda job, _report: _prepare_tvm(job),
    load=_load_tvm,
    computes_in=always_f32,
    settings=lambda job: f"default pipeline, {job.threads} threads",
)
"""TVM's default pipeline."""

TUNED_TVM = Engine(
    name="tvm-tuned",
    prepare=lambda job, _report: _prepare_tvm(job, trials=job.tuning_trials),
    load=_load_tvm,
    computes_in=always_f32,
    settings=lambda job: f"MetaSchedule, {job.tuning_trials} trials, {job.threads} threads",
)
"""TVM tuned by MetaSchedule."""
