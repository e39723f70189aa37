"""Operators that read or write at indices."""

from __future__ import annotations

from tvm_passes.operators import flops
from tvm_passes.operators.entry import Encoding, Operator, Trait, composition
from tvm_passes.operators.evaluation import evaluator
from tvm_passes.operators.onnx_operator import onnx


def _indexing(
    name: str, documentation: str, *imported: str, traits: tuple[Trait, ...] = ()
) -> Operator:
    return Operator(
        name=name,
        documentation=documentation,
        traits=frozenset(traits),
        onnx=onnx(*imported),
    )


_KEEPS = (Trait.KEEPS_ELEMENTS,)

ENTRIES = (
    Operator(
        name="take",
        documentation="Slices of x at indices along an axis.",
        traits=frozenset(
            [Trait.KEEPS_ELEMENTS, Trait.COMMUTES_WITH_QUANTIZATION, Trait.READS_ROWS]
        ),
        flops=flops.no_work,
        encoding=Encoding(anchor=14),
        evaluate=evaluator("taken"),
        onnx=onnx("Gather"),
    ),
    _indexing(
        "gather_elements",
        "Elements of x at indices along an axis.",
        "GatherElements",
        traits=_KEEPS,
    ),
    _indexing("gather_nd", "Slices of x at coordinates.", "GatherND", traits=_KEEPS),
    _indexing("nonzero", "Coordinates of the elements that are not 0.", "NonZero"),
    _indexing("one_hot", "1 at an index along a new axis, 0 elsewhere.", "OneHot"),
    _indexing(
        "scatter_elements", "x with updates at indices along an axis.", "ScatterElements", "Scatter"
    ),
    _indexing("scatter_nd", "x with updates at coordinates.", "ScatterND"),
    _indexing("unique", "Elements of x, each once.", "Unique"),
    composition("Compress", "Slices of x where a condition is true."),
)
