"""Answers of multi-exit networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


# Not frozen: that takes a microsecond longer to make, of some ten for a small network.
@dataclass(slots=True, kw_only=True, eq=False)
class ExitAnswer:
    """Answer of a network to one request."""

    label: int
    """Predicted class."""
    scores: np.ndarray
    """Values of the classes at the exit, (1, classes): logits or probabilities."""
    score: float
    """Score of the exit."""
    exit: str
    """Name of the exit."""
    us: float
    """Time from the call to the answer, microseconds."""
    cancelled: bool
    """True if the answer came before the end of the trunk, which then stopped."""
    at_deadline: bool = False
    """True if the deadline came before the answer: this is the best result by then."""
