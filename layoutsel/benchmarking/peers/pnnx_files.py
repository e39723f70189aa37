"""Conversion of ONNX by pnnx, to ncnn's files and to a module of PyTorch in Python."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from layoutsel.benchmarking.engine import EngineJob, Report
from tvm_passes.errors import LayoutselError

NCNN_PARAM, NCNN_WEIGHTS = "model.ncnn.param", "model.ncnn.bin"
"""Files of ncnn that the conversion writes next to the model ``model.onnx``."""
_MODULE = "model_pnnx.py"
"""File of the module of PyTorch."""
_LIMIT_S = 600.0
"""Time limit of the conversion, seconds."""


def convert(job: EngineJob, report: Report) -> None:
    """Convert the model without half precision, into the folder of the job."""
    import pnnx

    report("converting by pnnx")
    command = [pnnx.EXEC_PATH, str(job.model), "fp16=0"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_LIMIT_S, cwd=job.workdir
    )
    if done.returncode or not (job.workdir / _MODULE).exists():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise LayoutselError(f"pnnx cannot convert the model: {(lines or ['no reason'])[-1]}")


def load_module(job: EngineJob) -> Any:
    """Load the module of PyTorch, which is code that the conversion generated."""
    spec = importlib.util.spec_from_file_location("model_pnnx", job.workdir / _MODULE)
    if spec is None or spec.loader is None:
        raise LayoutselError(f"{_MODULE} is no module")
    made = importlib.util.module_from_spec(spec)
    with _inside(job):  # it reads its weights from the current folder
        spec.loader.exec_module(made)
        return made.Model().eval()


@contextlib.contextmanager
def _inside(job: EngineJob) -> Iterator[None]:
    before = os.getcwd()  # noqa: PTH109 - to return to, even if it no longer exists
    os.chdir(job.workdir)
    try:
        yield
    finally:
        os.chdir(before)
