"""Quantised models: products of integers, and the operators between two quantised tensors.

The integers of a tensor represent ``(integer - zero point) * scale``. Dequantising is not a
separate primitive: a product reads the integers, oneDNN scales its sums, and post-ops compute on
real numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tvm import relax
from tvm.ir import Call

from tvm_passes.ir import Expr, Var, op_name, static_shape
from tvm_passes.onednn.elementwise import Eltwise, other_operand
from tvm_passes.onednn.graph import PostOp, Primitive, Quantization, StoredTensor
from tvm_passes.onednn.scope import Integers, Scope, Step, is_reference, scalar

RANGES = {"int8": (-128, 127), "uint8": (0, 255)}
"""Element types of quantised tensors, with their smallest and largest value."""


def _linear(scale: float, shift: float = 0.0) -> PostOp:
    return Eltwise("linear", scale, shift).post_op()


def _uniform(scope: Scope, call: Call) -> tuple[float, int]:
    """Return the scale and the zero point of a quantisation; raises unless it is uniform."""
    scale, zero_point = (scalar(argument) for argument in call.args[1:])
    if scale is None or zero_point is None:
        raise scope.fail("a scale per channel", "one scale for the whole activation")
    return scale, int(zero_point)


def dequantize(scope: Scope, binding: relax.VarBinding) -> None:
    """Record a ``dequantize``; its consumers read the integers."""
    call = binding.value
    zero_point = scalar(call.args[2])
    if zero_point is None:
        raise scope.fail("a zero point per channel", "one zero point")
    scope.integers[binding.var] = Integers(
        source=call.args[0],
        scale=call.args[1],
        zero_point=int(zero_point),
        axis=int(call.attrs.axis) % len(static_shape(binding.var.ty)),
    )


def quantize(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``quantize`` of a tensor that no earlier primitive stores as integers."""
    call = binding.value
    _, zero_point = _uniform(scope, call)
    source = scope.activation(call.args[0])
    result = scope.graph.temp(source.shape, source.layout, scope.element)
    steps = Integers(source=call.args[0], scale=call.args[1], zero_point=zero_point)
    scope.append("reorder", [source], result).quantized = (scope.quantization("dst", steps),)
    scope.values[binding.var] = result


def product(scope: Scope, data: Expr, weight: Expr) -> tuple[Integers, Integers] | None:
    """Return the integers of an activation and of its weights; None for a product of real numbers.

    Raises
    ------
    Unsupported
        If an activation has several scales, or a weight a zero point.
    """
    integers = scope.integers.get(data), scope.integers.get(weight)
    if integers[0] is None or integers[1] is None or not scope.is_weight(integers[1].source):
        return None
    if scalar(integers[0].scale) is None:
        raise scope.fail("a scale per channel", "one scale for the whole activation")
    if integers[1].zero_point:
        raise scope.fail(f"weights with zero point {integers[1].zero_point}", "zero point 0")
    return integers[0], integers[1]


def scales(
    scope: Scope, operands: tuple[Integers, Integers], mask: int
) -> tuple[Quantization, Quantization]:
    """Return the scales of a product's operands.

    `mask` has the bits of the axes along which the scales of the weights differ, if they do.
    """
    source, weight = operands
    uniform = scalar(weight.scale) is not None
    return (
        scope.quantization("src", source),
        scope.quantization("weights", weight, 0 if uniform else mask),
    )


def stored(scope: Scope, binding: relax.VarBinding) -> Step | None:
    """Return the quantisation `binding` as a step of the primitive before it; None for others.

    If the only consumer dequantises again, the step rounds the values instead, and later operators
    compute on real numbers.
    """
    if op_name(binding.value) != "quantize":
        return None
    scale, zero_point = _uniform(scope, binding.value)
    dtype = str(binding.var.ty.dtype)
    scaled = _linear(1.0 / scale, float(zero_point))
    following = scope.only_consumer(binding.var)
    if following is None or op_name(following.value) != "dequantize":
        return Step(post_ops=(scaled,), var=binding.var, dtype=dtype)
    scale, zero_point = _uniform(scope, following.value)
    low, high = RANGES[dtype]
    rounded = (Eltwise("round").post_op(), Eltwise("clip", low, high).post_op())
    numbers = _linear(scale, -scale * zero_point)
    return Step(post_ops=(scaled, *rounded, numbers), var=following.var, skipped=(binding.var,))


def added(scope: Scope, binding: relax.VarBinding, chain: Var) -> Step | None:
    """Return the step that adds a dequantised tensor to `chain`; None if `binding` is no such sum.

    The primitive reads the integers: it divides `chain` by their scale, adds them, and scales the
    sum back.
    """
    found = other_operand(scope, binding, chain)
    if found is None or found[0] != "add" or found[1] in scope.values:
        return None
    integers = scope.integers.get(found[1])
    shape = static_shape(chain.ty)
    if integers is None or static_shape(found[1].ty) != shape:
        return None
    scale = scalar(integers.scale)
    if scale is None:
        return None
    tensor = scope.activation(integers.source)
    sum_ = PostOp(kind="binary", algorithm="add", tensor=tensor)
    back = _linear(scale, -scale * integers.zero_point)
    return Step(post_ops=(_linear(1.0 / scale), sum_, back), var=binding.var)


def average(scope: Scope, binding: relax.VarBinding, attrs: dict[str, object]) -> Primitive | None:
    """Return the pooling `binding` on integers; None if it computes on real numbers.

    It computes on integers if its result is quantised at once and oneDNN has a fast implementation.
    """
    integers = scope.integers.get(binding.value.args[0])
    following = scope.only_consumer(binding.var)
    if integers is None or following is None or attrs["algorithm"] != "avg":
        return None
    scale, step = scalar(integers.scale), stored(scope, following)
    if scale is None or step is None or step.dtype is None:
        return None
    source = scope.activation(integers.source)
    result = scope.result(static_shape(binding.var.ty))
    node = scope.node("pooling", [source], result, attrs)
    node.post_ops.append(_linear(scale, -scale * integers.zero_point))
    fused = dataclasses.replace(
        node, output=scope.graph.temp(result.shape, result.layout, step.dtype)
    )
    name = scope.implementation_of(fused)
    return node if name is not None and not is_reference(name) else None


def in_steps_of(
    scope: Scope, parts: Sequence[Expr], following: relax.VarBinding
) -> list[StoredTensor] | None:
    """Return `parts` as integers with the scale and zero point that `following` quantises to.

    `following` quantises the concatenation of the parts. None if it does not, or if a part has no
    uniform scale.
    """
    if op_name(following.value) != "quantize":
        return None
    if any(
        part not in scope.integers or scalar(scope.integers[part].scale) is None for part in parts
    ):
        return None
    steps = (*_uniform(scope, following.value), str(following.var.ty.dtype))
    return [_requantized(scope, scope.integers[part], steps) for part in parts]


def _requantized(scope: Scope, integers: Integers, steps: tuple[float, int, str]) -> StoredTensor:
    """Convert integers to another scale, zero point and type, if they differ."""
    tensor = scope.activation(integers.source)
    if (scalar(integers.scale), integers.zero_point, tensor.dtype) == steps:
        return tensor
    scale, zero_point, dtype = steps
    wanted = dataclasses.replace(integers, scale=relax.const(scale), zero_point=zero_point)
    result = scope.graph.temp(tensor.shape, tensor.layout, dtype)
    node = scope.append("reorder", [tensor], result)
    node.quantized = (scope.quantization("src", integers), scope.quantization("dst", wanted))
    return result


def simplified(post_ops: Sequence[PostOp], dtype: str | None) -> list[PostOp]:
    """Merge neighbouring linear functions, and drop functions that storing as integers implies.

    ``relu`` is superfluous before storing as uint8 with a zero point of zero.
    """
    merged: list[PostOp] = []
    for post_op in post_ops:
        last = merged[-1] if merged else None
        if last is not None and last.algorithm == post_op.algorithm == "linear":
            shift = last.beta * post_op.alpha + post_op.beta
            merged[-1] = _linear(last.alpha * post_op.alpha, shift)
        else:
            merged.append(post_op)
    last_two = merged[-2:]
    if dtype == "uint8" and len(last_two) == 2 and last_two[1].beta == 0:
        relu, linear = last_two
        if (relu.algorithm, relu.alpha, linear.algorithm) == ("relu", 0.0, "linear"):
            del merged[-2]
    return merged


EMITTERS = {"dequantize": dequantize, "quantize": quantize}
"""Emitter by Relax operator."""
