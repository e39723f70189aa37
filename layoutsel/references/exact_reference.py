"""Results of an ONNX model in float64 from ONNX's reference evaluator, independent of TVM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from layoutsel.references.exact_operators import operators

_CONSTANTS = frozenset({"Constant", "ConstantOfShape"})
"""Operators whose float32 results are exact, as they are values of the model."""


class NotExact(Exception):
    """An operator that the evaluator does not compute in float64."""


class _InDouble(ReferenceEvaluator):
    """Evaluator that widens float32 when it is read, and frees tensors after their last use."""

    def run(
        self, output_names: Any, feed_inputs: dict[str, Any], *rest: Any, **options: Any
    ) -> Any:
        attributes = rest[0] if rest else options.get("attributes")
        wanted = self.output_names if output_names is None else output_names
        results = {"": None, **self.rt_inits_, **feed_inputs}
        uses = Counter([*wanted, *(name for node in self.rt_nodes_ for name in node.input)])
        for node in self.rt_nodes_:
            if node.need_context():
                raise NotExact(f"{node.op_type} runs a graph")
            linked = (
                {"linked_attributes": attributes}
                if node.has_linked_attribute and attributes
                else {}
            )
            outputs = node.run(*(_widened(results[name]) for name in node.input), **linked)
            uses.subtract(node.input)
            for name in {*node.input}:
                if name and not uses[name]:
                    del results[name]
            for name, value in zip(node.output, outputs, strict=False):
                if uses[name]:
                    results[name] = _checked(node.op_type, value)
        return [_widened(results[name]) for name in wanted]


def exact_results(
    model: onnx.ModelProto, weights: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Compute the results of a model in float64.

    Parameters
    ----------
    model
        The ONNX model.
    weights
        Values of initializers that `model` only names.
    inputs
        Inputs by name.

    Raises
    ------
    NotExact
        If an operator is not computed in float64.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    kept = [one for one in bare.graph.initializer if one.name not in weights]
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(kept)
    # The stored types of intermediate tensors are those of float32.
    del bare.graph.value_info[:]
    evaluator = _InDouble(bare, new_ops=list(operators()))
    with np.errstate(all="ignore"):
        found: list[np.ndarray] = evaluator.run(None, {**weights, **inputs})
    return found


def _widened(value: Any) -> Any:
    is_single = isinstance(value, (np.ndarray, np.generic)) and value.dtype == np.float32
    return value.astype(np.float64) if is_single else value


def _checked(operator: str, value: Any) -> Any:
    is_array = isinstance(value, (np.ndarray, np.generic))
    if not is_array or (value.dtype.kind in "fV" and value.dtype != np.float64):
        if is_array and value.dtype == np.float32 and operator in _CONSTANTS:
            return value
        raise NotExact(f"{operator} gives {getattr(value, 'dtype', type(value).__name__)}")
    return value
