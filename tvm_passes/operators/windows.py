"""Entries of poolings, and of operators that sample images."""

from __future__ import annotations

from tvm_passes.onnx import rules, rules_windows
from tvm_passes.operators import flops
from tvm_passes.operators.entry import Encoding, Operator, Trait, composition
from tvm_passes.operators.onnx_operator import OnnxOperator, onnx, own

_AXES = {1: "one axis", 2: "two axes", 3: "three axes"}


def _maximum(
    rank: int, *imported: str | OnnxOperator, encoding: Encoding | None = None
) -> Operator:
    return Operator(
        name=f"nn.max_pool{rank}d",
        documentation=f"Maximum of each window along {_AXES[rank]}.",
        traits=frozenset([Trait.COMMUTES_WITH_QUANTIZATION]),
        flops=flops.pooling,
        encoding=encoding,
        onnx=onnx(*imported),
    )


def _average(
    rank: int,
    *imported: str | OnnxOperator,
    traits: frozenset[Trait] = frozenset(),
    encoding: Encoding | None,
) -> Operator:
    return Operator(
        name=f"nn.avg_pool{rank}d",
        documentation=f"Average of each window along {_AXES[rank]}.",
        traits=traits,
        flops=flops.pooling,
        encoding=encoding,
        onnx=onnx(*imported),
    )


def _adaptive(
    rank: int, *, traits: frozenset[Trait] = frozenset(), encoding: Encoding | None = None
) -> Operator:
    return Operator(
        name=f"nn.adaptive_avg_pool{rank}d",
        documentation=f"Averages along {_AXES[rank]}, as many as the result's size says.",
        traits=traits,
        flops=flops.per_input(1),
        encoding=encoding,
    )


def _sampling(
    name: str, documentation: str, *imported: str | OnnxOperator, encoding: Encoding | None = None
) -> Operator:
    return Operator(name=name, documentation=documentation, encoding=encoding, onnx=onnx(*imported))


_AVERAGES = frozenset([Trait.AVERAGES])

ENTRIES = (
    _maximum(1),
    _maximum(
        2,
        own("MaxPool", "pooling:max_pool", rules=rules_windows.POOLING, exact="max_pool"),
        encoding=Encoding(anchor=2),
    ),
    _maximum(3),
    _average(1, encoding=None),
    _average(
        2,
        own(
            "AveragePool", "pooling:average_pool", rules=rules_windows.POOLING, exact="average_pool"
        ),
        traits=_AVERAGES,
        encoding=Encoding(anchor=3),
    ),
    # Without a feature of its own, yet known: local response normalisation contains one.
    _average(3, encoding=Encoding()),
    _adaptive(1),
    _adaptive(2, traits=_AVERAGES, encoding=Encoding(anchor=4)),
    _adaptive(3),
    _sampling(
        "image.resize2d",
        "Image of another size.",
        own("Resize", "resize:convert", rules=rules.RESIZE),
        own("Upsample", rules=rules.UPSAMPLE),
        encoding=Encoding(anchor=13),
    ),
    _sampling("image.resize3d", "Volume of another size."),
    _sampling("image.affine_grid", "Places of an affine transformation.", "AffineGrid"),
    _sampling("image.grid_sample", "Image at the places of a grid.", "GridSample"),
    _sampling(
        "vision.roi_align",
        "Averages of the bins of regions.",
        own("RoiAlign", "limited:roi_align", rules=(rules.one_of("mode", "avg", "max"),)),
    ),
    _sampling("vision.roi_pool", "Maxima of the bins of regions.", "MaxRoiPool"),
    composition(
        "GlobalAveragePool",
        "Average of each channel.",
        own("GlobalAveragePool", rules=rules_windows.SPATIAL),
    ),
    composition(
        "GlobalLpPool",
        "Root of the sum of powers of each channel.",
        own("GlobalLpPool", rules=rules_windows.SPATIAL),
    ),
    composition(
        "GlobalMaxPool",
        "Maximum of each channel.",
        own("GlobalMaxPool", rules=rules_windows.SPATIAL),
    ),
    composition(
        "LpPool",
        "Root of the sum of powers of each window.",
        own("LpPool", "pooling:lp_pooling", rules=rules_windows.POOLING),
    ),
    composition("MaxUnpool", "Maxima put back to the places that a pooling took them from."),
)
