"""The host's cores through TVM's LLVM code generation."""

from __future__ import annotations

from collections.abc import Iterator

from layoutsel.core.precision import BF16, F32, SPLIT_BF16
from layoutsel.cost.graph import Subgraph
from layoutsel.units.base import Unit
from layoutsel.units.layouts import has_floats, layouts_of, packed_layout
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision
from tvm_passes.tuned import ALGORITHM as TUNED
from tvm_passes.tuned import current_database

CONVOLUTIONS = {"nn.conv2d"}


def _offers(subgraph: Subgraph) -> Iterator[Decision]:
    for layout in layouts_of(subgraph):
        yield Decision(unit="cpu", layout=layout)
    kernels = [weight.shape[2:] for weight in subgraph.weights[:1]]
    if subgraph.anchor in CONVOLUTIONS and kernels == [(3, 3)]:
        for algorithm in ("winograd", "winograd2"):
            yield Decision(unit="cpu", layout=packed_layout(), algorithm=algorithm)
    if current_database() is not None:
        for layout in layouts_of(subgraph):
            yield Decision(unit="cpu", layout=layout, algorithm=TUNED)
    for precision in (BF16, SPLIT_BF16) if has_floats(subgraph) else ():
        for layout in layouts_of(subgraph, precision):
            yield Decision(unit="cpu", layout=layout, precision=precision)


UNIT = Unit(backend=BACKENDS["cpu"], offers=_offers, precisions=(F32, SPLIT_BF16, BF16))
