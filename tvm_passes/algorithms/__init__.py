"""Algorithms: different ways in which one unit computes the same sub-graph, one file per entry.

An entry holds all that the compiler knows of an algorithm. Each module of this folder except
``base`` defines one as ``ALGORITHM``; other packages add theirs through the entry-point group
``layoutsel.algorithms``. Importing this does not import TVM.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from tvm_passes.algorithms.base import Algorithm, CandidateContext, PlanKernel
from tvm_passes.registry import Registry, entries_in

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "CandidateContext",
    "PlanKernel",
    "algorithm_of",
    "algorithms_of",
]


def _own() -> list[Algorithm]:
    entries = cast("list[Algorithm]", entries_in(__name__, "ALGORITHM"))
    return sorted(entries, key=lambda entry: entry.rank)


ALGORITHMS: Registry[Algorithm] = Registry("algorithm", _own, Algorithm)
"""All algorithms by name: ours in the order of their ranks, then those of other packages."""


def algorithm_of(name: str) -> Algorithm:
    """Find an algorithm. For an unknown name, return an entry without units or code.

    Files from other installations may name algorithms that this one lacks.
    """
    return ALGORITHMS.get(name) or Algorithm(name=name, about="unknown here", units=())


def algorithms_of(unit: str) -> Iterator[Algorithm]:
    """Algorithms of a unit, the default one first."""
    return (entry for entry in ALGORITHMS.values() if entry.is_default or unit in entry.units)
