"""Element-wise operators of one operand: functions, rounding, tests and casts."""

from __future__ import annotations

from math import erf

import numpy as np

from tvm_passes.operators.entry import CountedAs, Encoding, Evaluator, Operator, Role, composition
from tvm_passes.operators.evaluation import by_elements, evaluator
from tvm_passes.operators.onnx_operator import OnnxOperator, onnx, own


def _unary(
    name: str,
    documentation: str,
    *imported: str | OnnxOperator,
    evaluate: Evaluator | None = None,
    counted_as: CountedAs = CountedAs.OTHER,
) -> Operator:
    return Operator(
        name=name,
        documentation=documentation,
        role=Role.ELEMENTWISE,
        encoding=Encoding(counted_as=counted_as),
        evaluate=evaluate,
        onnx=onnx(*imported),
    )


def _transcendental(
    name: str, documentation: str, imported: str | OnnxOperator, evaluate: Evaluator
) -> Operator:
    counted_as = CountedAs.TRANSCENDENTAL
    return _unary(name, documentation, imported, evaluate=evaluate, counted_as=counted_as)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    value: np.ndarray = 1 / (1 + np.exp(-x))
    return value


ENTRIES = (
    _unary("abs", "Magnitude of x.", "Abs", evaluate=by_elements(np.abs)),
    _unary("acos", "Inverse cosine of x.", "Acos", evaluate=by_elements(np.arccos)),
    _unary("acosh", "Inverse hyperbolic cosine of x.", "Acosh", evaluate=by_elements(np.arccosh)),
    _unary("asin", "Inverse sine of x.", "Asin", evaluate=by_elements(np.arcsin)),
    _unary("asinh", "Inverse hyperbolic sine of x.", "Asinh", evaluate=by_elements(np.arcsinh)),
    _unary(
        "astype",
        "x in another element type.",
        own("Cast", exact="cast"),
        "CastLike",
        evaluate=evaluator("cast"),
    ),
    _unary("atan", "Inverse tangent of x.", "Atan", evaluate=by_elements(np.arctan)),
    _unary("atanh", "Inverse hyperbolic tangent of x.", "Atanh", evaluate=by_elements(np.arctanh)),
    _unary("bitwise_not", "x with every bit inverted.", "BitwiseNot"),
    _unary("ceil", "Least integer that is at least x.", "Ceil", evaluate=by_elements(np.ceil)),
    _unary("cos", "Cosine of x.", "Cos", evaluate=by_elements(np.cos)),
    _unary(
        "cosh",
        "Hyperbolic cosine of x.",
        own("Cosh", "arithmetic:cosh"),
        evaluate=by_elements(np.cosh),
    ),
    _transcendental(
        "erf", "Error function of x.", own("Erf", exact="erf"), by_elements(np.vectorize(erf))
    ),
    _transcendental("exp", "e to the power of x.", "Exp", by_elements(np.exp)),
    _unary("floor", "Largest integer that is at most x.", "Floor", evaluate=by_elements(np.floor)),
    _unary("isfinite", "True where x is a finite number."),
    _unary("isinf", "True where x is infinite.", own("IsInf", "arithmetic:is_infinite")),
    _unary("isnan", "True where x is no number.", "IsNaN"),
    _unary("log", "Natural logarithm of x.", "Log", evaluate=by_elements(np.log)),
    _unary("logical_not", "True where x is false.", "Not", evaluate=by_elements(np.logical_not)),
    _unary("negative", "-x.", "Neg", evaluate=by_elements(np.negative)),
    _unary("round", "Integer nearest to x; the even one of two.", "Round"),
    _unary("rsqrt", "1 / √x.", evaluate=by_elements(lambda x: 1 / np.sqrt(x))),
    _transcendental("sigmoid", "1 / (1 + e^-x).", "Sigmoid", by_elements(_sigmoid)),
    _unary("sign", "-1, 0 or 1 by the sign of x.", "Sign", evaluate=by_elements(np.sign)),
    _unary("sin", "Sine of x.", "Sin", evaluate=by_elements(np.sin)),
    _unary(
        "sinh",
        "Hyperbolic sine of x.",
        own("Sinh", "arithmetic:sinh"),
        evaluate=by_elements(np.sinh),
    ),
    _unary("sqrt", "Square root of x.", "Sqrt", evaluate=by_elements(np.sqrt)),
    _unary("square", "x · x.", evaluate=by_elements(np.square)),
    _unary("tan", "Tangent of x.", "Tan", evaluate=by_elements(np.tan)),
    _transcendental("tanh", "Hyperbolic tangent of x.", "Tanh", by_elements(np.tanh)),
    _unary("trunc", "x without its fraction.", evaluate=by_elements(np.trunc)),
    composition("Reciprocal", "1 / x."),
)
