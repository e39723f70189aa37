"""What a measurement comes to. Imports nothing but errors: it is made where nothing else is installed, too."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm_passes.errors import LayoutselError


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A measured time."""

    us: float
    """Microseconds of one run."""
    spread_us: float
    """Half the distance between the quartiles, and what a busy machine adds, microseconds."""
    runs: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.us) and self.us >= 0 and self.spread_us >= 0):
            raise LayoutselError(f"not a time: {self}")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no time: the candidate crashed, hung or refused."""

    reason: str


Outcome = Timing | Failure
