"""Legal values of options that the library and the command line share."""

from __future__ import annotations

from tvm_passes.errors import LayoutselError
from tvm_passes.units.entry import HOST_UNIT

PREDICTED = ("auto", "learned", "hybrid")
"""Names of the cost models that predict.

`learned` predicts with the trained model. `hybrid` also measures candidates that could change the
plan. `auto` does so only if the uncertainty of the predictions is expected to cost much.
"""
COSTS = (*PREDICTED, "measured", "roofline")
"""Names of all cost models.

`measured` times every candidate. `roofline` computes from the machine's peak rates alone.
"""
FALLBACKS = (HOST_UNIT,)
"""Units that may take over when a device is missing or fails."""


def check_cost(name: str) -> None:
    """Reject an unknown cost model name; raises :class:`LayoutselError`."""
    if name not in COSTS:
        raise LayoutselError(f"cost {name!r}: expected one of {', '.join(COSTS)}")


def check_fallback(name: str | None) -> None:
    """Reject an unknown fallback name; raises :class:`LayoutselError`."""
    if name is not None and name not in FALLBACKS:
        raise LayoutselError(f"fallback {name!r}: expected {' or '.join(FALLBACKS)}")
