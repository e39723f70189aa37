"""The table of compute units as the passes see them: what each supports and how it is lowered.

Our own are the files of :mod:`tvm_passes.units`; other packages add theirs by the entry-point group
``layoutsel.units``. Importing this does not import TVM.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from tvm_passes.registry import Registry, entries_in
from tvm_passes.units.entry import Backend

if TYPE_CHECKING:
    from tvm_passes.algorithms import PlanKernel

__all__ = [
    "BACKENDS",
    "Backend",
    "codegens",
    "device_units",
    "encoded_units",
    "known_backend",
    "lowering_order",
    "own_backends",
    "partition_orders",
    "planners",
    "register_backend",
    "target_kind",
]


@cache
def own_backends() -> Mapping[str, Backend]:
    """Our own back ends by name, in the order of their ranks."""
    found = cast("list[Backend]", entries_in("tvm_passes.units", "BACKEND"))
    ordered = sorted(found, key=lambda backend: backend.rank)
    return MappingProxyType({backend.name: backend for backend in ordered})


BACKENDS: Registry[Backend] = Registry(
    "unit", lambda: own_backends().values(), Backend, part="backend"
)
"""All back ends: ours in the order of their ranks, then those of other packages."""


def register_backend(backend: Backend) -> None:
    """Add a compute unit."""
    BACKENDS.register(backend)


def known_backend(name: str) -> Backend | None:
    """Find a back end; None if there is none.

    For one of our own, no other package is imported: those may need TVM.
    """
    return own_backends().get(name) or BACKENDS.get(name)


def target_kind(name: str) -> str | None:
    """Kind of the target that a unit's code is generated for; None for an unknown unit."""
    backend = known_backend(name)
    return backend.device if backend else None


def encoded_units() -> tuple[str, ...]:
    """Names of the units that have a column of their own in models of boundaries, in order."""
    places = {
        name: backend.boundary_feature
        for name, backend in own_backends().items()
        if backend.boundary_feature is not None
    }
    return tuple(sorted(places, key=lambda name: places[name]))


def lowering_order() -> tuple[Backend, ...]:
    """All back ends in the order of lowering: the one that takes what is left comes last."""
    return tuple(sorted(BACKENDS.values(), key=lambda backend: backend.takes_rest))


def codegens() -> dict[str, str]:
    """External code generation of each unit that takes whole partitions."""
    return {name: one.codegen for name, one in BACKENDS.items() if one.codegen}


def partition_orders() -> dict[str, frozenset[str]]:
    """Orders between which units transform inside their partitions, by unit."""
    return {name: one.orders for name, one in BACKENDS.items() if one.codegen}


def device_units() -> frozenset[str]:
    """Units with a memory of their own."""
    return frozenset(name for name, one in BACKENDS.items() if one.has_own_memory)


def planners() -> dict[str, PlanKernel]:
    """Planners of the units at hand."""
    return {
        backend.name: backend.planner
        for backend in BACKENDS.values()
        if backend.planner is not None and backend.absent() is None
    }
