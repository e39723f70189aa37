"""The table of precisions, one file each. Importing this does not import TVM."""

from __future__ import annotations

from typing import cast

from tvm_passes.errors import LayoutselError
from tvm_passes.precisions.entry import ElementStorage, Precision
from tvm_passes.registry import Registry, entries_in


def own_precisions() -> tuple[Precision, ...]:
    """Return the built-in precisions, the most exact first."""
    found = cast("list[Precision]", entries_in(__name__, "PRECISION"))
    return tuple(sorted(found, key=lambda precision: precision.local_error))


def encoded_precisions() -> tuple[str, ...]:
    """Return the precisions with a separate column in learned cost models, in order."""
    places = {one.name: one.feature for one in own_precisions() if one.feature is not None}
    return tuple(sorted(places, key=lambda name: places[name]))


PRECISIONS: Registry[Precision] = Registry("precision", own_precisions, Precision)
"""Every precision of a decision; other packages add theirs by ``layoutsel.precisions``."""


def storage_in(precision: str) -> str:
    """Return the storage of activations in a precision; empty if they keep the model's type."""
    return PRECISIONS.find(precision).storage_name


def element_storage(name: str) -> ElementStorage:
    """Return the storage with this name.

    Raises
    ------
    LayoutselError
        If no precision has it.
    """
    found = [one.storage for one in PRECISIONS.values() if one.storage_name == name]
    storage = found[0] if name and found else None
    if storage is None:
        known = ", ".join(
            dict.fromkeys(filter(None, (p.storage_name for p in PRECISIONS.values())))
        )
        raise LayoutselError(f"unknown storage {name!r}; expected one of {known}")
    return storage


def generic_precisions(unit: str) -> tuple[str, ...]:
    """Return the names of the precisions that a unit's generic code supports."""
    return tuple(one.name for one in PRECISIONS.values() if unit in one.generic)
