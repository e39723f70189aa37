"""layoutsel as an engine of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutsel.benchmarking.engine import Engine, EngineJob, Report, Run
from tvm_passes.errors import LayoutselError


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


LAYOUTSEL = Engine(name="layoutsel", prepare=_prepare_layoutsel, load=_load_layoutsel)
"""layoutsel with the options of the job."""
