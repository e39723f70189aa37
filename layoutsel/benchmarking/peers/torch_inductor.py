"""PyTorch's compiler: inductor with frozen weights, and with tuned products.

The ONNX model becomes a module of PyTorch by pnnx.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutsel.benchmarking.engine import EngineJob, Run
from layoutsel.benchmarking.peers.pnnx_files import convert, load_module
from layoutsel.benchmarking.variants import Settings, Variant, best_of
from layoutsel.core.precision import BF16, F32

_FREEZING = {"freezing": True}
_TUNED = {**_FREEZING, "max_autotune": True}

VARIANTS = (
    Variant(name="freezing", settings=_FREEZING),
    Variant(name="freezing, max-autotune", settings=_TUNED),
)
"""Settings of inductor for inference on CPUs, as PyTorch's documentation recommends."""


def _precision(mode: str) -> str:
    """Precision of PyTorch for a mode; it has no error budget, so stricter modes mean f32."""
    return BF16 if mode == BF16 else F32


def _load(job: EngineJob, inputs: Mapping[str, np.ndarray], settings: Settings) -> Run:
    import torch
    from torch._inductor import config

    torch.set_num_threads(job.threads)
    with contextlib.suppress(RuntimeError):  # it can be set once per process
        torch.set_num_interop_threads(1)
    module = load_module(job)
    tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values()]
    torch._dynamo.reset()
    compiled = torch.compile(module, dynamic=False)

    def run() -> list[np.ndarray]:
        with torch.inference_mode(), _autocast(torch, job.precision):
            results = compiled(*tensors)
        fields = results if isinstance(results, (tuple, list)) else [results]
        return [_array(field) for field in fields]

    with config.patch(dict(settings)):
        run()  # compiles
    return run


def _array(value: Any) -> np.ndarray:
    """Result as an array; numpy has no bfloat16."""
    return np.asarray((value.float() if value.is_floating_point() else value).numpy())


def _autocast(torch: Any, mode: str) -> Any:
    """Context in which products run in the precision of `mode`."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=_precision(mode) == BF16)


TORCH_INDUCTOR = best_of(
    "torch-inductor",
    VARIANTS,
    _load,
    convert=convert,
    requires=("torch", "pnnx"),
    extra="peers",
    computes_in=_precision,
)
"""PyTorch's compiler with the fastest of its settings."""
