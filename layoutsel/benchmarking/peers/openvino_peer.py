"""OpenVINO: for latency, and with the fastest of its hints and pinnings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from layoutsel.benchmarking.engine import Engine, EngineJob, Run
from layoutsel.benchmarking.variants import Settings, Variant, best_of
from layoutsel.core.precision import BF16, F32

if TYPE_CHECKING:
    import openvino

_LATENCY = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
_THROUGHPUT = {"PERFORMANCE_HINT": "THROUGHPUT"}

VARIANTS = (
    Variant(name="latency hint", settings=_LATENCY),
    Variant(name="latency hint, threads pinned", settings={**_LATENCY, "ENABLE_CPU_PINNING": True}),
    Variant(
        name="latency hint, threads not pinned", settings={**_LATENCY, "ENABLE_CPU_PINNING": False}
    ),
    Variant(
        name="latency hint, one thread per core",
        settings={**_LATENCY, "ENABLE_HYPER_THREADING": False},
    ),
    Variant(name="throughput hint", settings=_THROUGHPUT),
    Variant(
        name="throughput hint, threads pinned",
        settings={**_THROUGHPUT, "ENABLE_CPU_PINNING": True},
    ),
)
"""Hints and options of OpenVINO's documentation that keep the precision of the comparison."""


def precision_hint(mode: str) -> str:
    """OpenVINO's hint for a mode; it has no error budget, so stricter modes than bf16 mean f32."""
    return BF16 if mode == BF16 else F32


@cache
def openvino_core() -> openvino.Core:
    """Return this process's one core.

    On machines with AMX, OpenVINO's plugin sets an alternate signal stack. It frees that stack with
    the last core, and only the thread that set it gets its former stack back: if another thread
    frees the core, the next signal ends the process.
    """
    import openvino

    return openvino.Core()


def _load(job: EngineJob, inputs: Mapping[str, np.ndarray], settings: Settings) -> Run:
    config = {
        "INFERENCE_NUM_THREADS": job.threads,
        "INFERENCE_PRECISION_HINT": precision_hint(job.precision),
        **settings,
    }
    compiled = openvino_core().compile_model(str(job.model), "CPU", config)
    request = compiled.create_infer_request()
    feed = dict(inputs)
    outputs = compiled.outputs

    def run() -> list[np.ndarray]:
        results = request.infer(feed, share_inputs=True, share_outputs=True)
        return [results[output] for output in outputs]

    return run


def _latency(job: EngineJob) -> str:
    return f"latency hint, 1 stream, {job.threads} threads"


OPENVINO = Engine(
    name="openvino",
    load=lambda job, inputs: _load(job, inputs, _LATENCY),
    requires=("openvino",),
    computes_in=precision_hint,
    settings=_latency,
)
"""OpenVINO with the hint for latency."""

OPENVINO_TUNED = best_of(
    "openvino-tuned",
    VARIANTS,
    _load,
    requires=("openvino",),
    computes_in=precision_hint,
)
"""OpenVINO with the fastest of its hints and pinnings."""
