"""Sums of products: matrix products, convolutions, attention."""

from __future__ import annotations

import numpy as np

from tvm_passes.onnx import rules, rules_windows
from tvm_passes.onnx.facts import Rule
from tvm_passes.operators import flops
from tvm_passes.operators.entry import Encoding, Operator, Trait, composition
from tvm_passes.operators.evaluation import by_elements
from tvm_passes.operators.flops import FlopCount
from tvm_passes.operators.onnx_operator import MICROSOFT, OnnxOperator, onnx, own


def _product(
    name: str,
    documentation: str,
    count: FlopCount,
    imported: tuple[OnnxOperator, ...] = (),
    *,
    encoding: Encoding | None = None,
) -> Operator:
    return Operator(
        name=name,
        documentation=documentation,
        traits=frozenset([Trait.MULTIPLIES]),
        flops=count,
        encoding=encoding,
        packed_operand=1,
        evaluate=by_elements(np.matmul) if name == "matmul" else None,
        onnx=imported,
    )


def _checked(name: str, documentation: str, rules_: tuple[Rule, ...]) -> Operator:
    return composition(
        name, documentation, OnnxOperator(name=name, is_imported=False, rules=rules_)
    )


ENTRIES = (
    _product(
        "matmul",
        "Matrix product, for each place of the leading axes.",
        flops.matmul,
        onnx(
            own("MatMul", exact="matmul"),
            own("Gemm", "products:gemm", rules=(rules.broadcast(2),)),
        ),
        encoding=Encoding(anchor=1),
    ),
    _product(
        "nn.conv1d",
        "Products of a filter and a window that moves along one axis, summed up.",
        flops.convolution,
    ),
    _product(
        "nn.conv2d",
        "Products of a filter and a window that moves along two axes, summed up.",
        flops.convolution,
        onnx(own("Conv", "products:conv", rules=rules_windows.CONVOLUTION, exact="conv")),
        encoding=Encoding(anchor=0),
    ),
    _product(
        "nn.conv3d",
        "Products of a filter and a window that moves along three axes, summed up.",
        flops.convolution,
    ),
    _product(
        "nn.conv1d_transpose",
        "Adjoint of nn.conv1d: each element adds its products with the filter to a window.",
        flops.transposed_convolution,
    ),
    _product(
        "nn.conv2d_transpose",
        "Adjoint of nn.conv2d: each element adds its products with the filter to a window.",
        flops.transposed_convolution,
        onnx(
            own(
                "ConvTranspose",
                "products:conv_transpose",
                rules=rules_windows.TRANSPOSED_CONVOLUTION,
                exact="conv_transpose",
            )
        ),
        encoding=Encoding(anchor=12),
    ),
    _product(
        "nn.conv3d_transpose",
        "Adjoint of nn.conv3d: each element adds its products with the filter to a window.",
        flops.transposed_convolution,
    ),
    composition(
        "Attention", "Attention of packed projections.", own("Attention", domain=MICROSOFT)
    ),
    composition(
        "Einsum",
        "Sums of products over the letters that an equation leaves out.",
        own("Einsum", "einsum:convert", rules=(rules.equation,)),
    ),
    composition("MatMulInteger", "Matrix product of integers, less their zero points."),
    composition("MatMulInteger16", "Matrix product of 16-bit integers."),
    _checked(
        "ConvInteger",
        "Convolution of integers, less their zero points.",
        rules_windows.INTEGER_CONVOLUTION,
    ),
    _checked(
        "QLinearConv",
        "Convolution of quantised numbers, quantised again.",
        rules_windows.QUANTIZED_CONVOLUTION,
    ),
)
