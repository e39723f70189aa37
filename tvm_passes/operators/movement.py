"""Operators that rename, reorder, copy, join or cut tensors."""

from __future__ import annotations

from tvm_passes.onnx import rules, rules_indices
from tvm_passes.operators import flops
from tvm_passes.operators.entry import (
    CountedAs,
    Encoding,
    Evaluator,
    Operator,
    Role,
    Trait,
    composition,
)
from tvm_passes.operators.evaluation import evaluator
from tvm_passes.operators.flops import FlopCount
from tvm_passes.operators.onnx_operator import OnnxOperator, onnx, own

_KEEPS, _COMMUTES = Trait.KEEPS_ELEMENTS, Trait.COMMUTES_WITH_QUANTIZATION
_PADDING = (
    rules.one_of("mode", "constant", "reflect", "edge", "wrap"),
    rules.vector(1, 3),
    rules.reflection,
)
_RENAMES = (_KEEPS, _COMMUTES, Trait.RENAMES)


def _movement(
    name: str,
    documentation: str,
    *imported: str | OnnxOperator,
    traits: tuple[Trait, ...] = _RENAMES,
    counted_as: CountedAs = CountedAs.OTHER,
    evaluate: Evaluator | None = None,
) -> Operator:
    """Operator that renames or reorders elements, one to one."""
    return Operator(
        name=name,
        documentation=documentation,
        role=Role.MOVEMENT,
        traits=frozenset(traits),
        flops=flops.no_work,
        encoding=Encoding(counted_as=counted_as),
        evaluate=evaluate,
        onnx=onnx(*imported),
    )


def _copy(
    name: str,
    documentation: str,
    *imported: str | OnnxOperator,
    traits: tuple[Trait, ...] = (_KEEPS,),
    count: FlopCount = flops.one_per_result,
    encoding: Encoding | None = None,
    evaluate: Evaluator | None = None,
) -> Operator:
    """Operator that copies elements; it starts a sub-graph."""
    return Operator(
        name=name,
        documentation=documentation,
        traits=frozenset(traits),
        flops=count,
        encoding=encoding,
        evaluate=evaluate,
        onnx=onnx(*imported),
    )


ENTRIES = (
    _movement(
        "expand_dims",
        "x with further axes of size 1.",
        "Unsqueeze",
        counted_as=CountedAs.VIEW,
        evaluate=evaluator("shaped"),
    ),
    _movement("flatten", "x as a vector, or a matrix.", "Flatten", evaluate=evaluator("shaped")),
    _movement("layout_transform", "x in another order in memory.", traits=(_KEEPS,)),
    _movement(
        "permute_dims",
        "x with its axes in another order.",
        own("Transpose", rules=(rules_indices.permutation,)),
        traits=(_KEEPS, _COMMUTES),
        counted_as=CountedAs.PERMUTATION,
        evaluate=evaluator("transposed"),
    ),
    _movement(
        "reshape",
        "x in another shape.",
        own("Reshape", "movement:reshape", rules=(rules_indices.elements,)),
        counted_as=CountedAs.VIEW,
        evaluate=evaluator("shaped"),
    ),
    _movement(
        "squeeze",
        "x without axes of size 1.",
        "Squeeze",
        counted_as=CountedAs.VIEW,
        evaluate=evaluator("shaped"),
    ),
    _copy(
        "broadcast_to",
        "x repeated along axes of size 1.",
        "Expand",
        evaluate=evaluator("broadcast"),
    ),
    _copy(
        "concat",
        "Tensors, joined along an axis.",
        "Concat",
        traits=(_KEEPS, _COMMUTES),
        count=flops.no_work,
        encoding=Encoding(anchor=7),
        evaluate=evaluator("concatenated"),
    ),
    _copy("flip", "x in reverse along an axis."),
    _copy(
        "nn.pad",
        "x with elements around it.",
        own("Pad", "movement:pad", rules=_PADDING),
        traits=(),
    ),
    _copy("repeat", "Each element of x, several times."),
    _copy(
        "split",
        "Parts of x along an axis.",
        own("Split", rules=(rules_indices.split,)),
        count=flops.no_work,
        encoding=Encoding(anchor=16),
        evaluate=evaluator("parts"),
    ),
    _copy("stack", "Tensors, joined along a new axis.", evaluate=evaluator("stacked")),
    _copy(
        "strided_slice",
        "Part of x, each axis in steps.",
        "Slice",
        traits=(_KEEPS, _COMMUTES),
        count=flops.no_work,
        encoding=Encoding(anchor=15),
        evaluate=evaluator("sliced"),
    ),
    _copy(
        "tile",
        "x, several times along axes.",
        own("Tile", "movement:tile"),
        evaluate=evaluator("tiled"),
    ),
    _copy("tril", "Lower triangle of x, 0 elsewhere.", traits=()),
    _copy("triu", "Upper triangle of x, 0 elsewhere.", "Trilu", traits=()),
    composition("ConcatFromSequence", "Tensors of a sequence, joined."),
    composition(
        "DepthToSpace",
        "Channels moved into blocks of pixels.",
        own("DepthToSpace", rules=(rules.one_of("mode", "DCR", "CRD"), rules.blocks)),
    ),
    Operator(
        name="Identity",
        documentation="x.",
        role=Role.COMPOSITION,
        traits=frozenset([Trait.RENAMES]),
        onnx=onnx("Identity"),
    ),
    composition(
        "SpaceToDepth",
        "Blocks of pixels moved into channels.",
        own("SpaceToDepth", "limited:space_to_depth", rules=(rules.blocks,)),
    ),
    composition("SplitToSequence", "Parts of x, as a sequence."),
)
