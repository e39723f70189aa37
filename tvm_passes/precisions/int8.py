"""Precision ``int8``: the integers of a quantised model."""

from __future__ import annotations

from tvm_passes.precisions.entry import Precision

PRECISION = Precision(
    name="int8",
    documentation="The integers of a quantised model; what is between them is float32.",
    local_error=1e-7,
    speedup=12.0,
    is_own=True,
    feature=2,
)
