"""Reductions along axes, running sums, and searches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm_passes.deferred import Deferred
from tvm_passes.onnx import rules_indices
from tvm_passes.operators import flops
from tvm_passes.operators.entry import (
    Encoding,
    Evaluator,
    Operator,
    Trait,
    composition,
)
from tvm_passes.operators.evaluation import evaluator
from tvm_passes.operators.flops import FlopCount
from tvm_passes.operators.onnx_operator import OnnxOperator, onnx, own


def _reduction(
    name: str,
    documentation: str,
    *imported: str | OnnxOperator,
    count: FlopCount = flops.one_per_result,
    encoding: Encoding | None = None,
    evaluate: Evaluator | None = None,
    legalize: Callable[..., Any] | None = None,
) -> Operator:
    return Operator(
        name=name,
        documentation=documentation,
        traits=frozenset([Trait.AVERAGES] if name == "mean" else []),
        flops=count,
        encoding=encoding,
        evaluate=evaluate,
        legalize=legalize,
        onnx=onnx(*imported),
    )


def _rule(name: str) -> Callable[..., Any]:
    return Deferred(f"tvm_passes.legalize:{name}")


_ONE = flops.per_input(1)

ENTRIES = (
    _reduction("argmax", "Index of the maximum along an axis.", "ArgMax", legalize=_rule("argmax")),
    _reduction("argmin", "Index of the minimum along an axis.", "ArgMin", legalize=_rule("argmin")),
    _reduction("argsort", "Indices that sort along an axis."),
    _reduction("cumprod", "Running product along an axis."),
    _reduction(
        "cumsum",
        "Running sum along an axis.",
        own("CumSum", "reductions:cumulative_sum", rules=(rules_indices.axis_value,)),
        evaluate=evaluator("cumulative_sum"),
    ),
    _reduction(
        "max", "Maximum along axes.", "ReduceMax", count=_ONE, evaluate=evaluator("maximum")
    ),
    _reduction(
        "mean",
        "Average along axes.",
        "ReduceMean",
        count=_ONE,
        encoding=Encoding(anchor=5),
        evaluate=evaluator("mean"),
    ),
    _reduction("median", "Median along an axis."),
    _reduction(
        "min", "Minimum along axes.", "ReduceMin", count=_ONE, evaluate=evaluator("minimum")
    ),
    _reduction(
        "prod", "Product along axes.", "ReduceProd", count=_ONE, evaluate=evaluator("product")
    ),
    _reduction("sort", "Elements sorted along an axis."),
    _reduction(
        "std",
        "Standard deviation along axes.",
        evaluate=evaluator("deviation"),
        legalize=_rule("std"),
    ),
    _reduction(
        "sum",
        "Sum along axes.",
        "ReduceSum",
        count=_ONE,
        encoding=Encoding(anchor=17),
        evaluate=evaluator("total"),
    ),
    _reduction(
        "topk",
        "The largest elements along an axis, and their indices.",
        own("TopK", "limited:top_k", rules=(rules_indices.top_k,)),
    ),
    _reduction(
        "variance",
        "Mean square of the differences from the mean along axes.",
        count=flops.per_input(3),
        encoding=Encoding(anchor=18),
        evaluate=evaluator("variance"),
        legalize=_rule("variance"),
    ),
    composition("Hardmax", "1 at the first maximum along an axis, 0 elsewhere."),
    composition("ReduceL1", "Sum of magnitudes along axes."),
    composition("ReduceL2", "Root of the sum of squares along axes."),
    composition("ReduceLogSum", "Logarithm of the sum along axes."),
    composition(
        "ReduceLogSumExp",
        "Logarithm of the sum of e^x along axes.",
        own("ReduceLogSumExp", "reductions:log_sum_exp"),
    ),
    composition("ReduceSumSquare", "Sum of squares along axes."),
)
