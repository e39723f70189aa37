"""oneDNN as an accelerator: partitions of primitives with fused post-operations."""

from __future__ import annotations

from collections.abc import Iterator

from layoutsel.core.precision import BF16, F32, INT8, SPLIT_BF16
from layoutsel.cost.graph import Subgraph
from layoutsel.units.base import Unit
from layoutsel.units.layouts import has_floats, layouts_of, offers
from tvm_passes.decision import Decision
from tvm_passes.units.onednn import BACKEND


def _offers(subgraph: Subgraph) -> Iterator[Decision]:
    own = INT8 if subgraph.is_quantized else F32
    for precision in (own, BF16, SPLIT_BF16) if has_floats(subgraph) else (own,):
        yield from offers("onednn", subgraph, precision, layouts_of(subgraph, precision))


UNIT = Unit(backend=BACKEND, offers=_offers, precisions=(F32, INT8, BF16, SPLIT_BF16))
"""The entry of the table of units."""
