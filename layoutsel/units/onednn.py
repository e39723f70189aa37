"""oneDNN as an accelerator: partitions of primitives with fused post-operations."""

from __future__ import annotations

from collections.abc import Iterator

from layoutsel.model.graph import Subgraph
from layoutsel.units.base import Unit
from layoutsel.units.layouts import layouts_of
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision


def _offers(subgraph: Subgraph) -> Iterator[Decision]:
    precision = "int8" if subgraph.is_quantized else "f32"
    for layout in layouts_of(subgraph):
        yield Decision(unit="onednn", layout=layout, precision=precision)


UNIT = Unit(backend=BACKENDS["onednn"], offers=_offers)
