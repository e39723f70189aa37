"""Float64 operators for ONNX's reference evaluator, from the table of operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from tvm_passes.operators import OPERATORS, OnnxOperator


def operators() -> list[type[OpRun]]:
    """Operator classes for :class:`onnx.reference.ReferenceEvaluator`."""
    entries = (one for entry in OPERATORS.values() for one in entry.onnx)
    return [_class(one, one.reference) for one in entries if one.reference is not None]


def _class(operator: OnnxOperator, reference: Callable[..., Any]) -> type[OpRun]:
    def _run(self: Any, *tensors: Any, **attributes: Any) -> tuple[np.ndarray, ...]:
        opset = self.run_params["opsets"].get(operator.domain, 1)
        try:
            results = reference(*tensors, node=self.onnx_node, opset=opset, **attributes)
        except (AttributeError, TypeError) as error:  # ONNX would hide their messages
            raise RuntimeError(f"{operator.name}: {type(error).__name__}: {error}") from error
        return results if isinstance(results, tuple) else (results,)

    return type(operator.name, (OpRun,), {"op_domain": operator.domain, "_run": _run})
