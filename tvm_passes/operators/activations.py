"""Entries of activations, which are element-wise."""

from __future__ import annotations

from tvm_passes.onnx import rules
from tvm_passes.operators.entry import CountedAs, Encoding, Evaluator, Operator, Role, composition
from tvm_passes.operators.evaluation import evaluator
from tvm_passes.operators.onnx_operator import MICROSOFT, OnnxOperator, onnx, own


def _activation(
    name: str,
    documentation: str,
    imported: tuple[OnnxOperator, ...] = (),
    *,
    counted_as: CountedAs = CountedAs.OTHER,
    evaluate: Evaluator | None = None,
) -> Operator:
    return Operator(
        name=name,
        documentation=documentation,
        role=Role.ELEMENTWISE,
        encoding=Encoding(counted_as=counted_as),
        evaluate=evaluate,
        onnx=imported,
    )


_APPROXIMATE = (rules.one_of("approximate", "none", "tanh"),)
_CLIP, _SLOW = CountedAs.CLIP, CountedAs.TRANSCENDENTAL

ENTRIES = (
    _activation(
        "clip",
        "x, at least the lower limit and at most the upper one.",
        onnx(own("Clip", "arithmetic:clip", rules=(rules.scalar(1, 2),))),
        counted_as=_CLIP,
        evaluate=evaluator("clipped"),
    ),
    _activation("nn.dropout", "x: nothing is dropped in inference.", onnx("Dropout")),
    _activation(
        "nn.gelu",
        "x · Φ(x), Φ being the normal distribution.",
        onnx(own("Gelu", rules=_APPROXIMATE), own("Gelu", domain=MICROSOFT)),
        counted_as=_SLOW,
    ),
    _activation("nn.gelu_tanh", "nn.gelu with Φ approximated by tanh.", counted_as=_SLOW),
    _activation("nn.leakyrelu", "x where positive, alpha · x elsewhere.", onnx("LeakyRelu")),
    _activation(
        "nn.prelu",
        "x where positive, slope · x elsewhere, a slope per channel.",
        onnx(own("PRelu", rules=(rules.broadcast(1, 0),))),
    ),
    _activation("nn.relu", "The larger of x and 0.", onnx("Relu"), counted_as=_CLIP),
    _activation("nn.relu6", "x, at least 0 and at most 6."),
    _activation(
        "nn.selu",
        "gamma · x where positive, gamma · alpha · (e^x - 1) elsewhere.",
        onnx(own("Selu", "activations:selu")),
    ),
    _activation("nn.silu", "x · sigmoid(x).", counted_as=_SLOW),
    _activation("nn.softplus", "ln(1 + e^x).", onnx("Softplus")),
    composition("BiasGelu", "nn.gelu of x + bias.", own("BiasGelu", domain=MICROSOFT)),
    composition(
        "Elu", "x where positive, alpha · (e^x - 1) elsewhere.", own("Elu", "activations:elu")
    ),
    composition(
        "FastGelu", "nn.gelu_tanh of x, or of x + bias.", own("FastGelu", domain=MICROSOFT)
    ),
    composition(
        "HardSigmoid",
        "alpha · x + beta, at least 0 and at most 1.",
        own("HardSigmoid", "activations:hard_sigmoid"),
    ),
    composition(
        "HardSwish",
        "x · (x/6 + 1/2), the factor at least 0 and at most 1.",
        own("HardSwish", "activations:hard_swish"),
    ),
    composition("Mish", "x · tanh(softplus(x))."),
    composition("Shrink", "0 within lambda of 0, x towards 0 by bias elsewhere."),
    composition("Softsign", "x / (1 + |x|)."),
    composition(
        "ThresholdedRelu",
        "x above alpha, 0 elsewhere.",
        own("ThresholdedRelu", "activations:thresholded_relu"),
    ),
)
