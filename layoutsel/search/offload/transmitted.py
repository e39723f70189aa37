"""Precisions in which tensors are sent from the first device to the second."""

from __future__ import annotations

from collections.abc import Mapping

FLOAT32, BFLOAT16, UINT8 = "float32", "bfloat16", "uint8"
"""Names of the precisions. Tensors that are sent are never negative, so none needs a sign."""
PRECISIONS: Mapping[str, int] = {FLOAT32: 4, BFLOAT16: 2, UINT8: 1}
"""Bytes of an element by precision."""
