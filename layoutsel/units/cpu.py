"""The host's cores through TVM's LLVM code generation."""

from __future__ import annotations

from collections.abc import Iterator

from layoutsel.core.precision import BF16, F32, SPLIT_BF16
from layoutsel.cost.graph import Subgraph
from layoutsel.units.base import Unit
from layoutsel.units.layouts import generic_offers, has_floats, layouts_of, offers
from tvm_passes.decision import Decision
from tvm_passes.units.cpu import BACKEND

PRECISIONS = (F32, SPLIT_BF16, BF16)
"""Precisions of the candidates."""


def _offers(subgraph: Subgraph) -> Iterator[Decision]:
    for precision in (F32, BF16, SPLIT_BF16) if has_floats(subgraph) else (F32,):
        yield from offers("cpu", subgraph, precision, layouts_of(subgraph, precision))
    yield from generic_offers("cpu", subgraph)


UNIT = Unit(backend=BACKEND, offers=_offers, precisions=PRECISIONS)
"""The entry of the table of units."""
