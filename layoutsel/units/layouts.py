"""Which layouts are worth asking about for a sub-graph."""

from __future__ import annotations

from functools import cache
from math import prod

from layoutsel.model.graph import Subgraph
from tvm_passes.cpu.host import host_target, vector_unit
from tvm_passes.layout import PLAIN

_TYPES = ("float32", "int8", "uint8")


@cache
def packed_layout() -> str:
    """The packed layout whose block fills this machine's vector register, or half of it."""
    return "NCHW16c" if vector_unit(host_target()).lanes >= 16 else "NCHW8c"


def is_image(subgraph: Subgraph) -> bool:
    """Whether a sub-graph touches a feature map of numbers, for which layouts other than plain exist."""
    specs = (*subgraph.inputs, *subgraph.outputs)
    return any(
        len(spec.shape) == 4 and spec.dtype in _TYPES and prod(spec.shape[1:]) > spec.shape[1]
        for spec in specs
    )


def layouts_of(subgraph: Subgraph) -> tuple[str, ...]:
    """Plain for every sub-graph; channels-last and packed as well where there is a feature map."""
    return (PLAIN, "NHWC", packed_layout()) if is_image(subgraph) else (PLAIN,)
