"""AMX tiles: products in bfloat16, or in pairs of bfloat16, with sums in float32."""

from __future__ import annotations

from collections.abc import Iterator

from layoutsel.cost.graph import Subgraph
from layoutsel.units.base import Unit
from layoutsel.units.layouts import is_image, offers
from tvm_passes.amx.legality import PRECISIONS
from tvm_passes.decision import Decision
from tvm_passes.layout import PLAIN
from tvm_passes.units.amx import BACKEND

ANCHORS = frozenset({"nn.conv2d", "matmul"})
"""Anchors with kernels on tiles."""


def _offers(subgraph: Subgraph) -> Iterator[Decision]:
    if subgraph.anchor not in ANCHORS:
        return
    for layout in ("NHWC", "NCHW32c") if is_image(subgraph) else (PLAIN,):
        for precision in PRECISIONS:
            yield from offers("amx", subgraph, precision, (layout,))


UNIT = Unit(backend=BACKEND, offers=_offers, precisions=PRECISIONS)
"""The entry of the table of units."""
