"""Candidate layouts of a sub-graph."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from layoutsel.core.precision import F32, OWN
from layoutsel.cost.graph import Subgraph
from tvm_passes.algorithms import CandidateContext, algorithms_of
from tvm_passes.cpu.host import host_target, vector_unit
from tvm_passes.decision import Decision
from tvm_passes.gpu.legality import precisions_of
from tvm_passes.layout import PLAIN
from tvm_passes.layouts import generic_layouts
from tvm_passes.precisions import generic_precisions

STORED_BLOCK = "NCHW32c"
"""Packed layout of bfloat16: one block is a row of a tile, and fills a vector register."""

_TYPES = ("float32", "int8", "uint8")
"""Element types of feature maps."""


def packed_layout() -> str:
    """Return the packed layout of f32, whose block fills the target's vector register, or half."""
    return "NCHW16c" if vector_unit(host_target()).lanes >= 16 else "NCHW8c"


def is_image(subgraph: Subgraph) -> bool:
    """Return whether a sub-graph reads or writes a feature map, which can have several layouts."""
    specs = (*subgraph.inputs, *subgraph.outputs)
    return any(
        len(spec.shape) == 4 and spec.dtype in _TYPES and prod(spec.shape[1:]) > spec.shape[1]
        for spec in specs
    )


def layouts_of(subgraph: Subgraph, precision: str = F32) -> tuple[str, ...]:
    """Return the candidate layouts: plain, and for a feature map also channels-last and packed."""
    packed = packed_layout() if precision in OWN else STORED_BLOCK
    return (PLAIN, "NHWC", packed) if is_image(subgraph) else (PLAIN,)


def has_floats(subgraph: Subgraph) -> bool:
    """Return whether a sub-graph reads or writes a tensor that precisions store differently."""
    return any(spec.dtype == "float32" for spec in (*subgraph.inputs, *subgraph.outputs))


def offers(
    unit: str, subgraph: Subgraph, precision: str, layouts: tuple[str, ...]
) -> Iterator[Decision]:
    """Yield the candidates of each algorithm, in those of `layouts` that it requests."""
    context = CandidateContext(
        unit=unit,
        anchor=subgraph.anchor,
        weights=tuple(weight.shape for weight in subgraph.weights),
        precision=precision,
        layouts=layouts,
        packed=packed_layout(),
    )
    for algorithm in algorithms_of(unit):
        for layout in algorithm.layouts(context):
            yield Decision(unit=unit, layout=layout, precision=precision, algorithm=algorithm.name)


def generic_offers(unit: str, subgraph: Subgraph) -> Iterator[Decision]:
    """Yield the candidates that only generic code computes.

    These have layouts and precisions of other packages.
    """
    layouts = generic_layouts(unit) if is_image(subgraph) else (PLAIN,)
    precisions = generic_precisions(unit) if has_floats(subgraph) else (F32,)
    for precision in precisions:
        for layout in layouts:
            if (layout, precision) != (PLAIN, F32):
                yield Decision(unit=unit, layout=layout, precision=precision)


def device_offers(unit: str, subgraph: Subgraph) -> Iterator[Decision]:
    """Yield the candidates of a GPU."""
    precisions = precisions_of(unit)
    layouts = generic_layouts(unit) if is_image(subgraph) else (PLAIN,)
    for precision in precisions if has_floats(subgraph) else (F32,):
        yield from offers(unit, subgraph, precision, layouts)
