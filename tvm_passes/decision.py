"""What is decided about a sub-graph. A plan is a mapping from sub-graph ids to these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from tvm_passes.errors import IllegalDecision

SubgraphId = NewType("SubgraphId", str)


@dataclass(frozen=True, kw_only=True, order=True)
class Decision:
    """Where and how one sub-graph runs.

    Written ``unit:layout[:precision[:algorithm]]``, for example ``onednn:NHWC`` or
    ``cpu:NCHW16c:f32:winograd``.
    """

    unit: str
    """Name of the compute unit, such as ``cpu`` or ``onednn``."""
    layout: str = "NCHW"
    """Name of a layout of :mod:`tvm_passes.layout`."""
    precision: str = "f32"
    """Arithmetic precision: ``f32``, ``bf16``, ``split-bf16``, or ``int8`` of a quantised model."""
    algorithm: str = "direct"
    """Algorithm within the unit, such as ``direct`` or ``winograd``."""

    def __str__(self) -> str:
        parts = [self.unit, self.layout, self.precision, self.algorithm]
        defaults = ["", "", "f32", "direct"]
        while len(parts) > 2 and parts[-1] == defaults[len(parts) - 1]:
            parts.pop()
        return ":".join(parts)

    @classmethod
    def parse(cls, text: str) -> Decision:
        """Read what :meth:`__str__` writes.

        Raises
        ------
        IllegalDecision
            If `text` has fewer than two or more than four fields, or an empty one.
        """
        parts = text.split(":")
        if not 2 <= len(parts) <= 4 or not all(parts):
            raise IllegalDecision(
                f"cannot read decision {text!r}: expected unit:layout[:precision[:algorithm]], "
                f"such as onednn:NHWC or cpu:NCHW16c"
            )
        names = ("unit", "layout", "precision", "algorithm")
        return cls(**dict(zip(names, parts, strict=False)))
