"""Families of work, and the family of each operator of layoutsel and its peers."""

from __future__ import annotations

from collections.abc import Mapping

from layoutsel.cost.graph import Subgraph
from tvm_passes.operators import Role, Trait, has_trait, role

CONVOLUTION, GROUPED = "convolution", "grouped convolution"
PRODUCT, ATTENTION, SOFTMAX = "product", "attention product", "softmax"
NORMALISATION, ELEMENTWISE = "normalisation", "element-wise"
LAYOUT, REDUCTION, OTHER = "layout change", "pooling, reduction", "other"

FAMILIES = (
    CONVOLUTION,
    GROUPED,
    PRODUCT,
    ATTENTION,
    SOFTMAX,
    NORMALISATION,
    ELEMENTWISE,
    LAYOUT,
    REDUCTION,
    OTHER,
)
"""Families in the order of tables.

A product has a constant matrix, an attention product has two activations. Depthwise convolutions
are grouped. An operator that is fused into another counts with that one.
"""

_ANCHORS: Mapping[str, str] = {
    "nn.softmax": SOFTMAX,
    "nn.log_softmax": SOFTMAX,
    "elementwise": ELEMENTWISE,
    "movement": LAYOUT,
    "take": LAYOUT,
    "lrn": NORMALISATION,
    "attention": ATTENTION,
    "nn.batch_norm": NORMALISATION,
    **dict.fromkeys(("max", "mean", "min", "prod", "std", "sum", "topk", "variance"), REDUCTION),
}
"""Family of each anchor of layoutsel that has no trait for it."""


def family_of(subgraph: Subgraph, *, has_constant_matrix: bool) -> str:
    """Family of a sub-graph of layoutsel.

    Parameters
    ----------
    subgraph
        The sub-graph.
    has_constant_matrix
        True if the right-hand operand of its anchor is constant.
    """
    anchor = subgraph.anchor
    if anchor == "matmul":
        return PRODUCT if has_constant_matrix else ATTENTION
    if "conv" in anchor:
        grouped = subgraph.attributes.get("groups", (1,)) != (1,)
        return GROUPED if grouped else CONVOLUTION
    return _ANCHORS.get(anchor) or _by_traits(anchor)


def _by_traits(anchor: str) -> str:
    """Family of an anchor that is in no table."""
    if "pool" in anchor:
        return REDUCTION
    if has_trait(anchor, Trait.NORMALISES):
        return NORMALISATION
    moves = has_trait(anchor, Trait.KEEPS_ELEMENTS) or role(anchor) is Role.MOVEMENT
    return LAYOUT if moves else OTHER


_ONNXRUNTIME: Mapping[str, str] = {
    **dict.fromkeys(("Gemm", "MatMul", "FusedMatMul", "FusedGemm"), PRODUCT),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), ATTENTION),
    **dict.fromkeys(("Softmax", "LogSoftmax"), SOFTMAX),
    **dict.fromkeys(
        (
            "LayerNormalization",
            "SkipLayerNormalization",
            "SimplifiedLayerNormalization",
            "RMSNormalization",
            "InstanceNormalization",
            "GroupNormalization",
            "BatchNormalization",
            "LpNormalization",
            "LRN",
        ),
        NORMALISATION,
    ),
    **dict.fromkeys(
        (
            "ReorderInput",
            "ReorderOutput",
            "Transpose",
            "Reshape",
            "Squeeze",
            "Unsqueeze",
            "Flatten",
            "Concat",
            "Split",
            "Slice",
            "Gather",
            "GatherND",
            "Pad",
            "Expand",
            "Tile",
            "DepthToSpace",
            "SpaceToDepth",
            "Cast",
            "Identity",
        ),
        LAYOUT,
    ),
    **dict.fromkeys(
        (
            "MaxPool",
            "AveragePool",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceSum",
            "ReduceL2",
        ),
        REDUCTION,
    ),
    **dict.fromkeys(
        (
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Pow",
            "Sqrt",
            "Exp",
            "Erf",
            "Tanh",
            "Relu",
            "LeakyRelu",
            "PRelu",
            "Clip",
            "Sigmoid",
            "HardSigmoid",
            "HardSwish",
            "Gelu",
            "BiasGelu",
            "QuickGelu",
            "Softplus",
            "Where",
            "Neg",
            "Abs",
            "Min",
            "Max",
            "Sum",
            "Equal",
            "Sin",
            "Cos",
            "Reciprocal",
        ),
        ELEMENTWISE,
    ),
}
"""Family of each operator of ONNX Runtime; those of convolutions depend on their groups."""


def onnxruntime_family(operator: str, *, groups: int, has_constant_matrix: bool) -> str:
    """Family of a node of ONNX Runtime's optimised graph."""
    if "Conv" in operator:
        return GROUPED if groups > 1 else CONVOLUTION
    family = _ONNXRUNTIME.get(operator, OTHER)
    return ATTENTION if family == PRODUCT and not has_constant_matrix else family


_OPENVINO: Mapping[str, str] = {
    "Convolution": CONVOLUTION,
    "Deconvolution": CONVOLUTION,
    "GroupConvolution": GROUPED,
    "FullyConnected": PRODUCT,
    "MatMul": ATTENTION,
    "ScaledDotProductAttention": ATTENTION,
    "MHA": ATTENTION,
    "Softmax": SOFTMAX,
    "LogSoftmax": SOFTMAX,
    **dict.fromkeys(("MVN", "NormalizeL2", "RMSNorm", "RMS", "LRN"), NORMALISATION),
    **dict.fromkeys(("Pooling", "Reduce", "AdaptivePooling", "TopK"), REDUCTION),
    **dict.fromkeys(
        (
            "Reorder",
            "Transpose",
            "Reshape",
            "Concatenation",
            "Concat",
            "Split",
            "StridedSlice",
            "Slice",
            "Gather",
            "Pad",
            "Tile",
            "Broadcast",
            "Roll",
            "Convert",
            "SpaceToDepth",
            "DepthToSpace",
            "ShuffleChannels",
        ),
        LAYOUT,
    ),
    **dict.fromkeys(("Eltwise", "Subgraph", "Math", "Select", "Snippet"), ELEMENTWISE),
}
"""Family of each kind of node of OpenVINO's CPU plugin."""


def openvino_family(layer_type: str) -> str:
    """Family of a node of OpenVINO's runtime model.

    A ``Subgraph`` of OpenVINO may hold a whole attention; its code is one kernel, which counts as
    element-wise.
    """
    return _OPENVINO.get(layer_type, OTHER)
