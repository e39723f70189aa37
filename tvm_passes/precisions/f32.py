"""Precision ``f32``: single precision."""

from __future__ import annotations

from tvm_passes.precisions.entry import Precision

PRECISION = Precision(
    name="f32",
    documentation="Arithmetic and storage in float32.",
    local_error=1e-7,
    is_own=True,
    generic=("cpu", "cuda", "opencl"),
)
