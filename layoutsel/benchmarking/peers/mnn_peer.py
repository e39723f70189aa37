"""MNN, which multiplies by Winograd's algorithm in f32."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutsel.benchmarking.engine import Engine, EngineJob, Report, Run, always_f32
from layoutsel.benchmarking.variants import Settings, Variant, best_of
from tvm_passes.errors import LayoutselError

VARIANTS = (
    Variant(name="high precision", settings={}),
    Variant(name="high precision, high power", settings={"power": "high"}),
    Variant(name="high precision, low memory", settings={"memory": "low"}),
)
"""Settings of MNN's documentation that compute in f32; ``high`` precision is f32."""

_CONVERTED = "model.mnn"
_LIMIT_S = 600.0
"""Time limit of the conversion, seconds."""


def _convert(job: EngineJob, report: Report) -> None:
    """Convert the model by MNN's own converter."""
    report("converting for mnn")
    command = [sys.executable, "-m", "MNN.tools.mnnconvert", "-f", "ONNX"]
    command += ["--modelFile", str(job.model), "--MNNModel", str(job.workdir / _CONVERTED)]
    command += ["--bizCode", "layoutsel"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    if done.returncode or not (job.workdir / _CONVERTED).exists():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise LayoutselError(f"MNN cannot convert the model: {(lines or ['no reason'])[-1]}")


def _load(job: EngineJob, inputs: Mapping[str, np.ndarray], settings: Settings) -> Run:
    import MNN
    import onnx

    graph = onnx.load(str(job.model), load_external_data=False).graph
    config = {"backend": "CPU", "precision": "high", "numThread": job.threads, **settings}
    manager = MNN.nn.create_runtime_manager((config,))
    net = MNN.nn.load_module_from_file(
        str(job.workdir / _CONVERTED),
        list(inputs),
        [output.name for output in graph.output],
        runtime_manager=manager,
    )
    given = [_variable(MNN, value) for value in inputs.values()]

    def run() -> list[np.ndarray]:
        return [np.array(value.read()) for value in net.forward(given)]

    return run


def _variable(mnn: Any, value: np.ndarray) -> Any:
    """MNN's form of an input."""
    types = {"float32": mnn.expr.float, "int32": mnn.expr.int, "int64": mnn.expr.int}
    if value.dtype.name not in types:
        raise LayoutselError(f"got an input of {value.dtype}; MNN expects float32 or integers")
    known = value.astype(np.int32) if value.dtype == np.int64 else value
    return mnn.expr.const(known, list(value.shape), mnn.expr.NCHW, types[value.dtype.name])


MNN: Engine = best_of(
    "mnn",
    VARIANTS,
    _load,
    convert=_convert,
    requires=("MNN",),
    extra="peers",
    computes_in=always_f32,
)
"""MNN with the fastest of its settings."""
