"""Softmax, and normalisations by mean and deviation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm_passes.deferred import Deferred
from tvm_passes.onnx import rules
from tvm_passes.operators import flops
from tvm_passes.operators.entry import (
    CountedAs,
    Encoding,
    Evaluator,
    Operator,
    Trait,
    composition,
)
from tvm_passes.operators.evaluation import evaluator
from tvm_passes.operators.flops import FlopCount
from tvm_passes.operators.onnx_operator import MICROSOFT, OnnxOperator, onnx, own


def _normalization(
    name: str,
    documentation: str,
    *imported: str | OnnxOperator,
    count: FlopCount = flops.one_per_result,
    traits: tuple[Trait, ...] = (Trait.NORMALISES,),
    encoding: Encoding | None = None,
    evaluate: Evaluator | None = None,
    legalize: Callable[..., Any] | None = None,
) -> Operator:
    return Operator(
        name=name,
        documentation=documentation,
        traits=frozenset(traits),
        flops=count,
        encoding=encoding,
        evaluate=evaluate,
        legalize=legalize,
        onnx=onnx(*imported),
    )


_SOFTMAX = (Trait.NORMALISES, Trait.READS_LOGITS)
_FIVE, _EIGHT = flops.per_input(5), flops.per_input(8)

ENTRIES = (
    _normalization(
        "nn.batch_norm",
        "x less a mean, over a deviation, scaled and shifted per channel.",
        own("BatchNormalization", exact="batch_norm"),
        traits=(),
        evaluate=evaluator("batch_normalized"),
    ),
    _normalization(
        "nn.group_norm",
        "x normalised over groups of channels, scaled and shifted.",
        own("GroupNormalization", rules=(rules.groups_of_channels,)),
        count=_EIGHT,
    ),
    _normalization(
        "nn.instance_norm",
        "x normalised over each channel, scaled and shifted.",
        own("InstanceNormalization", rules=(rules.per_channel(1, 2),)),
        count=_EIGHT,
    ),
    _normalization(
        "nn.layer_norm",
        "x normalised over its last axes, scaled and shifted.",
        own("LayerNormalization", "normalizations:layer_norm", rules=rules.NORMALIZED),
        count=_EIGHT,
        encoding=Encoding(anchor=9),
        legalize=Deferred("tvm_passes.legalize:layer_norm"),
    ),
    _normalization(
        "nn.log_softmax",
        "Logarithm of nn.softmax.",
        own("LogSoftmax", exact="log_softmax"),
        count=_FIVE,
        traits=_SOFTMAX,
    ),
    _normalization(
        "nn.rms_norm",
        "x over its root mean square, scaled.",
        own(
            "RMSNormalization", "normalizations:rms_norm", rules=(rules.axis, rules.broadcast(1, 0))
        ),
    ),
    _normalization(
        "nn.softmax",
        "e^x over its sum along an axis.",
        own("Softmax", exact="softmax"),
        count=_FIVE,
        traits=_SOFTMAX,
        encoding=Encoding(anchor=8, counted_as=CountedAs.TRANSCENDENTAL),
    ),
    composition(
        "EmbedLayerNormalization",
        "Sum of embeddings, normalised over its last axis.",
        own("EmbedLayerNormalization", domain=MICROSOFT),
    ),
    composition(
        "LRN",
        "x over a power of the sum of squares of neighbouring channels.",
        own("LRN", "normalizations:lrn", rules=(rules.positive("size"),), exact="lrn"),
    ),
    composition("MeanVarianceNormalization", "x normalised over some axes."),
    composition(
        "SkipLayerNormalization",
        "Sum of two tensors, normalised over its last axis.",
        own("SkipLayerNormalization", domain=MICROSOFT),
    ),
)
