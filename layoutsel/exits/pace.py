"""Time that a server takes for a request, against that of a switch of threads."""

from __future__ import annotations

SWITCH_US = 50.0
"""Time from a request on one thread to its begin on another, as measured on one machine."""
_FEWEST = 8
"""Number of requests before a mean counts."""
_WEIGHT = 1 / 16
"""Weight of the last request in the mean."""


class Pace:
    """Mean time of single requests, without their wait."""

    def __init__(self) -> None:
        self._mean_us, self._seen = 0.0, 0

    def add(self, us: float) -> None:
        """Take the time of a request, microseconds; several threads may lose some of them."""
        weight = _WEIGHT if self._seen >= _FEWEST else 1 / (self._seen + 1)
        self._mean_us += weight * (us - self._mean_us)
        self._seen += 1

    @property
    def is_quick(self) -> bool:
        """True if a request is done before another thread would begin with it."""
        return self._seen >= _FEWEST and self._mean_us < SWITCH_US
