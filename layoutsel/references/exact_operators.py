"""Operators of ONNX's reference evaluator whose results the entries of operators give, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from tvm_passes.operators import OPERATORS, OnnxOperator


def operators() -> list[type[OpRun]]:
    """Classes for :class:`onnx.reference.ReferenceEvaluator`: one for each reference of an entry."""
    entries = (one for entry in OPERATORS.values() for one in entry.onnx)
    return [_class(one, one.reference) for one in entries if one.reference is not None]


def _class(operator: OnnxOperator, reference: Callable[..., Any]) -> type[OpRun]:
    def _run(self: Any, *tensors: Any, **attributes: Any) -> tuple[np.ndarray, ...]:
        opset = self.run_params["opsets"].get(operator.domain, 1)
        results = reference(*tensors, node=self.onnx_node, opset=opset, **attributes)
        return results if isinstance(results, tuple) else (results,)

    return type(operator.name, (OpRun,), {"op_domain": operator.domain, "_run": _run})
