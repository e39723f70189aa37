"""The table of layouts, one file each; :mod:`tvm_passes.layout` computes with their names.

Importing this does not import TVM.
"""

from __future__ import annotations

from typing import cast

from tvm_passes.layouts.entry import Layout
from tvm_passes.registry import Registry, entries_in


def own_layouts() -> tuple[Layout, ...]:
    """Return the built-in layouts: those without blocks first, then by the size of the blocks."""
    found = cast("list[Layout]", entries_in(__name__, "LAYOUT"))
    return tuple(sorted(found, key=lambda layout: layout.block or 0))


def encoded_layouts() -> tuple[str, ...]:
    """Return the names of the layouts with a separate column in learned cost models, in order."""
    places = {layout.name: layout.feature for layout in own_layouts() if layout.feature is not None}
    return tuple(sorted(places, key=lambda name: places[name]))


LAYOUTS: Registry[Layout] = Registry("layout", own_layouts, Layout)
"""Every order that a decision may name; other packages add theirs by ``layoutsel.layouts``."""


def generic_layouts(unit: str) -> tuple[str, ...]:
    """Return the names of the layouts that a unit's generic code supports."""
    return tuple(layout.name for layout in LAYOUTS.values() if unit in layout.generic)
