"""Arithmetic work of operators: one table, the source of every FLOP count."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from tvm import relax
from tvm.ir import Call

from tvm_passes.ir import op_name, static_shape, tensor_types
from tvm_passes.operators import MOVEMENT


def _elements(ty: relax.Type) -> int:
    return sum(prod(static_shape(leaf)) for leaf in tensor_types(ty))


def _convolution(call: Call, result: relax.Type) -> int:
    weight = static_shape(call.args[1].ty)
    return 2 * _elements(result) * prod(weight[1:])


def _transposed_convolution(call: Call, _result: relax.Type) -> int:
    weight = static_shape(call.args[1].ty)
    return 2 * _elements(call.args[0].ty) * prod(weight[1:])


def _matmul(call: Call, result: relax.Type) -> int:
    return 2 * _elements(result) * static_shape(call.args[0].ty)[-1]


def _pooling(call: Call, result: relax.Type) -> int:
    return _elements(result) * prod(int(extent) for extent in call.attrs.pool_size)


def _over_input(operations: int) -> Callable[[Call, relax.Type], int]:
    return lambda call, _result: operations * _elements(call.args[0].ty)


FLOPS: dict[str, Callable[[Call, relax.Type], int]] = {
    **{f"nn.conv{rank}d": _convolution for rank in (1, 2, 3)},
    **{f"nn.conv{rank}d_transpose": _transposed_convolution for rank in (1, 2, 3)},
    **{f"nn.{kind}_pool{rank}d": _pooling for kind in ("max", "avg") for rank in (1, 2, 3)},
    **{f"nn.adaptive_avg_pool{rank}d": _over_input(1) for rank in (1, 2, 3)},
    **dict.fromkeys(("sum", "mean", "max", "min", "prod"), _over_input(1)),
    **dict.fromkeys(("nn.softmax", "nn.log_softmax"), _over_input(5)),
    **dict.fromkeys(("nn.layer_norm", "nn.group_norm", "nn.instance_norm"), _over_input(8)),
    **dict.fromkeys(("quantize", "dequantize"), _over_input(0)),
    "variance": _over_input(3),
    "matmul": _matmul,
}


def flops(call: relax.Expr, result: relax.Type) -> int:
    """Arithmetic operations of one operator call, a multiply-add counted as two.

    An operator that is not in the table counts one per element of its result; one that only moves elements, none.
    """
    operator = op_name(call)
    if operator in FLOPS:
        return FLOPS[operator](call, result)
    return (
        0
        if operator in MOVEMENT or operator in {"concat", "split", "take", "strided_slice"}
        else _elements(result)
    )
