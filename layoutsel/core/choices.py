"""Names that options of the library and of the command line take."""

from __future__ import annotations

from tvm_passes.errors import LayoutselError

COSTS = ("learned", "hybrid", "measured", "roofline")
"""Cost models: predicted by the learned model; the same with what could change the plan measured; everything measured;
the roofline of the machine alone."""
FALLBACKS = ("cpu",)
"""Units that take over where a device is missing or fails."""


def check_cost(name: str) -> None:
    """Reject an unknown cost model name; raises :class:`LayoutselError`."""
    if name not in COSTS:
        raise LayoutselError(f"cost {name!r}: expected one of {', '.join(COSTS)}")


def check_fallback(name: str | None) -> None:
    """Reject an unknown fallback name; raises :class:`LayoutselError`."""
    if name is not None and name not in FALLBACKS:
        raise LayoutselError(f"fallback {name!r}: expected {' or '.join(FALLBACKS)}")
