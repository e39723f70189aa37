"""Precision ``split-bf16``: each value is a pair of bfloat16."""

from __future__ import annotations

from tvm_passes.precisions.entry import ElementStorage, Precision

PRECISION = Precision(
    name="split-bf16",
    documentation="Products of pairs of bfloat16, which keep 16 bits together; sums in float32.",
    storage=ElementStorage(name="split", dtype="bfloat16", parts=2),
    local_error=5e-6,
    speedup=2.0,
    larger_weights=3 / 2,
    feature=1,
)
