"""Helpers of the converters of ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir.expr import GenericConst
from tvm.relax import Expr
from tvm.relax.frontend.onnx import onnx_frontend

Converter = Callable[[relax.BlockBuilder, Sequence[Any], dict[str, Any], Any, int], Expr]
"""(builder, inputs, attributes, state of the importer, operator set) → expression."""


def stock(name: str) -> Converter:
    """TVM's own converter of an operator."""

    def convert(builder: relax.BlockBuilder, *arguments: Any) -> Expr:
        *others, opset = arguments
        return onnx_frontend._get_convert_map()[name].get_converter(opset)(builder, *others)

    return convert


def array_of(expr: Expr | None) -> np.ndarray | None:
    """Value of a constant; None for anything else."""
    return expr.value.numpy() if isinstance(expr, GenericConst) else None


def constant(value: Any, dtype: Any) -> Expr:
    """Constant of exactly `dtype`: ``relax.const`` makes 64-bit arrays 32 bits wide."""
    return relax.const(tvm.runtime.tensor(np.asarray(value, str(dtype))))
