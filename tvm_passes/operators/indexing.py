"""Operators that read or write at indices."""

from __future__ import annotations

from tvm_passes.onnx import rules_indices
from tvm_passes.operators import flops
from tvm_passes.operators.entry import Encoding, Operator, Trait, composition
from tvm_passes.operators.evaluation import evaluator
from tvm_passes.operators.onnx_operator import OnnxOperator, onnx, own


def _indexing(
    name: str, documentation: str, *imported: str | OnnxOperator, traits: tuple[Trait, ...] = ()
) -> Operator:
    return Operator(
        name=name,
        documentation=documentation,
        traits=frozenset(traits),
        onnx=onnx(*imported),
    )


_AXIS = (rules_indices.indices_of_axis,)
_ELEMENTS = (rules_indices.elements_fit, *_AXIS)
_UPDATES = (rules_indices.elements_fit, rules_indices.updates_like_indices, *_AXIS)
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
        onnx=onnx(own("Gather", "indices:gather", rules=_AXIS)),
    ),
    _indexing(
        "gather_elements",
        "Elements of x at indices along an axis.",
        own("GatherElements", "indices:gather_elements", rules=_ELEMENTS),
        traits=_KEEPS,
    ),
    _indexing(
        "gather_nd",
        "Slices of x at coordinates.",
        own("GatherND", "indices:gather_nd", rules=(rules_indices.coordinates,)),
        traits=_KEEPS,
    ),
    _indexing("nonzero", "Coordinates of the elements that are not 0.", "NonZero"),
    _indexing(
        "one_hot",
        "1 at an index along a new axis, 0 elsewhere.",
        own("OneHot", "indices:one_hot", rules=(rules_indices.new_axis,)),
    ),
    _indexing(
        "scatter_elements",
        "x with updates at indices along an axis.",
        own("ScatterElements", "indices:scatter_elements", rules=_UPDATES),
        own("Scatter", rules=_UPDATES),
    ),
    _indexing(
        "scatter_nd",
        "x with updates at coordinates.",
        own(
            "ScatterND",
            "indices:scatter_nd",
            rules=(rules_indices.updates_of_slices, rules_indices.coordinates),
        ),
    ),
    _indexing("unique", "Elements of x, each once.", "Unique"),
    composition("Compress", "Slices of x where a condition is true."),
)
