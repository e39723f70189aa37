"""Share of a machine's peaks that a unit attains: the prior of cost models."""

from __future__ import annotations

from dataclasses import dataclass

MODERATE = 0.5
"""Relative uncertainty of an estimate from a measured efficiency."""


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Share of the machine's peaks that a unit attains in a layout."""

    compute: float
    """Attained share of the f32 peak."""
    bandwidth: float
    """Attained share of the read bandwidth."""
    launches: float = 1.0
    """Overhead of a call, as a multiple of the machine's launch overhead."""
    spread: float = MODERATE
    """Relative uncertainty of an estimate from these shares."""
