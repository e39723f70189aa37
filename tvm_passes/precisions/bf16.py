"""Precision ``bf16``: bfloat16, half of float32's bits."""

from __future__ import annotations

from tvm_passes.precisions.entry import ElementStorage, Precision

PRECISION = Precision(
    name="bf16",
    documentation="Operands and results in bfloat16, which keeps 8 bits; sums in float32.",
    storage=ElementStorage(name="bf16", dtype="bfloat16"),
    local_error=2e-3,
    relative_bytes=0.5,
    speedup=8.0,
    on_matrix_units=True,
    feature=0,
)
