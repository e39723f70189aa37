"""The table of compute units in the passes: what each supports and how it is lowered.

Built-in units are the files of :mod:`tvm_passes.units`; other packages add theirs by the
entry-point group ``layoutsel.units``. Importing this does not import TVM.
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
    """Return the built-in back ends by name, ordered by rank."""
    found = cast("list[Backend]", entries_in("tvm_passes.units", "BACKEND"))
    ordered = sorted(found, key=lambda backend: backend.rank)
    return MappingProxyType({backend.name: backend for backend in ordered})


BACKENDS: Registry[Backend] = Registry(
    "unit", lambda: own_backends().values(), Backend, part="backend"
)
"""All back ends: built-in ones by rank, then those of other packages."""


def register_backend(backend: Backend) -> None:
    """Add the back end of a compute unit."""
    BACKENDS.register(backend)


def known_backend(name: str) -> Backend | None:
    """Return a back end; None if there is none.

    For a built-in one, no other package is imported, because that may need TVM.
    """
    return own_backends().get(name) or BACKENDS.get(name)


def target_kind(name: str) -> str | None:
    """Return the kind of a unit's target; None for an unknown unit."""
    backend = known_backend(name)
    return backend.device if backend else None


def encoded_units() -> tuple[str, ...]:
    """Return the units with a separate column in models of boundaries, in order."""
    places = {
        name: backend.boundary_feature
        for name, backend in own_backends().items()
        if backend.boundary_feature is not None
    }
    return tuple(sorted(places, key=lambda name: places[name]))


def lowering_order() -> tuple[Backend, ...]:
    """Return all back ends in the order of lowering; the one that takes the rest is last."""
    return tuple(sorted(BACKENDS.values(), key=lambda backend: backend.takes_rest))


def codegens() -> dict[str, str]:
    """Return the external code generation of each unit that takes whole partitions."""
    return {name: one.codegen for name, one in BACKENDS.items() if one.codegen}


def partition_orders() -> dict[str, frozenset[str]]:
    """Return, by unit, the element orders between which its partitions can convert."""
    return {name: one.orders for name, one in BACKENDS.items() if one.codegen}


def device_units() -> frozenset[str]:
    """Return the units with a memory of their own."""
    return frozenset(name for name, one in BACKENDS.items() if one.has_own_memory)


def planners() -> dict[str, PlanKernel]:
    """Return the planners of the available units."""
    return {
        backend.name: backend.planner
        for backend in BACKENDS.values()
        if backend.planner is not None and backend.absent() is None
    }
