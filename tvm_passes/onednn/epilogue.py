"""Fusion of the operators that follow a primitive: bias, element-wise functions, operands."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
from tvm import relax

from tvm_passes.ir import Constant, Var, op_name, static_shape
from tvm_passes.onednn.elementwise import Eltwise, as_binary_post_op, as_eltwise
from tvm_passes.onednn.graph import PostOp, Primitive, StoredTensor
from tvm_passes.onednn.quantized import added, simplified, stored
from tvm_passes.onednn.scope import Scope, Step, is_reference, scalar

_MAX_POST_OPS = 8
"""Maximum number of post-ops of a primitive."""
_MAX_QUANTIZED_POST_OPS = 16
"""Maximum number of post-ops of a primitive in a quantised sub-graph.

Rounding to integers and back takes four of them.
"""
_MAX_REGION = 10
"""Maximum number of operators in a region that is recognised as one function."""

_BIAS_AXIS = {"convolution": 1, "deconvolution": 1, "matmul": -1}
"""Primitives with a bias, and the axis of the result along which the bias varies."""

_SAMPLES = np.concatenate([np.linspace(-8, 8, 161), np.linspace(-1, 1, 41)])
"""Points at which a region of operators is compared with oneDNN's functions."""

# SciPy has this function, but its import takes a tenth of a short command's time.
_erf = np.vectorize(math.erf, otypes=[np.float64])

_NAMED_FUNCTIONS = (
    (Eltwise("swish", 1.0), _SAMPLES / (1 + np.exp(-_SAMPLES))),
    (Eltwise("hardswish", 1 / 6, 0.5), _SAMPLES * np.clip(_SAMPLES / 6 + 0.5, 0, 1)),
    (Eltwise("gelu_erf"), _SAMPLES * 0.5 * (1 + _erf(_SAMPLES / np.sqrt(2)))),
    (
        Eltwise("gelu_tanh"),
        0.5 * _SAMPLES * (1 + np.tanh(np.sqrt(2 / np.pi) * (_SAMPLES + 0.044715 * _SAMPLES**3))),
    ),
    (Eltwise("mish"), _SAMPLES * np.tanh(np.log1p(np.exp(_SAMPLES)))),
)
"""oneDNN's functions that models often spell out in several operators, with their values at the
samples.
"""

_NUMPY: Mapping[str, Callable[..., np.ndarray]] = {
    "abs": np.abs,
    "add": np.add,
    "divide": np.divide,
    "erf": _erf,
    "exp": np.exp,
    "log": np.log,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "multiply": np.multiply,
    "negative": np.negative,
    "nn.relu": lambda x: np.maximum(x, 0),
    "nn.relu6": lambda x: np.clip(x, 0, 6),
    "nn.softplus": lambda x: np.log1p(np.exp(x)),
    "power": np.power,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "subtract": np.subtract,
    "tanh": np.tanh,
    "clip": np.clip,
}
"""Numpy's function for each Relax operator that a recognised region may contain."""


def finish(scope: Scope, var: Var, node: Primitive) -> None:
    """Add `node`, which computes `var`, to the graph, with as many following operators as possible.

    An operator is fused if oneDNN still has a fast implementation of the primitive.
    """
    node.implementation = scope.implementation
    scope.implementation = 0
    baseline = scope.implementation_of(node)
    var = _fuse_bias(scope, var, node)
    most = _MAX_QUANTIZED_POST_OPS if scope.quantizes else _MAX_POST_OPS
    while len(node.post_ops) < most:
        step = _next_step(scope, var)
        if step is None:
            break
        extended = _extended(scope, node, step, static_shape(var.ty))
        if extended is None or len(extended.post_ops) > most:
            break
        if not _keeps_speed(baseline, scope.implementation_of(extended)):
            break
        node.post_ops, node.output = extended.post_ops, extended.output
        scope.done.update((*step.skipped, step.var))
        var = step.var
        if step.dtype:
            break
    scope.graph.nodes.append(node)
    logical = static_shape(var.ty)
    folded = node.output.shape != logical
    scope.values[var] = scope.view(node.output, logical) if folded else node.output


def _extended(
    scope: Scope, node: Primitive, step: Step, logical: tuple[int, ...]
) -> Primitive | None:
    """Return `node` extended by `step`, or None if the step is impossible.

    Parameters
    ----------
    logical
        Shape of the result for which `step` was made; that of `node` may have its leading axes
        folded.
    """
    shape = node.output.shape
    folded = [_folded(scope, post_op, logical, shape) for post_op in step.post_ops]
    added = [post_op for post_op in folded if post_op is not None and not _misreads(node, post_op)]
    if len(added) < len(folded):
        return None
    post_ops = [*node.post_ops, *added]
    if scope.quantizes:
        post_ops = simplified(post_ops, step.dtype)
    output = node.output
    if step.dtype:
        output = scope.graph.temp(shape, output.layout, step.dtype)
    return dataclasses.replace(node, post_ops=post_ops, output=output)


def _misreads(node: Primitive, post_op: PostOp) -> bool:
    """Return whether oneDNN 3.2 would read the operand of `post_op` wrongly.

    Its pooling in plain layout misreads operands that are not per channel.
    """
    tensor = post_op.tensor
    if node.op != "pooling" or tensor is None:
        return False
    return any(size != 1 for axis, size in enumerate(tensor.shape) if axis != 1)


def _folded(
    scope: Scope, post_op: PostOp, logical: tuple[int, ...], shape: tuple[int, ...]
) -> PostOp | None:
    """Adapt `post_op` from a result of shape `logical` to one with leading axes folded to `shape`.

    None if its operand has no such view.
    """
    tensor = post_op.tensor
    if tensor is None or shape == logical:
        return post_op
    if tensor.shape == logical:
        return dataclasses.replace(post_op, tensor=scope.view(scope.plain(tensor), shape))
    if all(size == 1 for size in tensor.shape[:-1]):
        last = (1,) * (len(shape) - 1) + tensor.shape[-1:]
        return dataclasses.replace(post_op, tensor=scope.view(scope.plain(tensor), last))
    return None


def _keeps_speed(before: str | None, after: str | None) -> bool:
    """Return whether a fused primitive exists and does not fall back to a slow reference."""
    return after is not None and (not is_reference(after) or before is None or is_reference(before))


def _fuse_bias(scope: Scope, var: Var, node: Primitive) -> Var:
    """Fuse a constant vector that is added to `var`; returns the last computed variable."""
    following = scope.only_consumer(var)
    if node.op not in _BIAS_AXIS or following is None or op_name(following.value) != "add":
        return var
    operand = next((arg for arg in following.value.args if not arg.same_as(var)), None)
    if operand is None or not scope.known(operand) or operand in scope.integers:
        return var
    bias = _bias_tensor(scope, operand, node, static_shape(var.ty))
    if bias is None or static_shape(following.var.ty) != static_shape(var.ty):
        return var
    extended = dataclasses.replace(node, inputs=[*node.inputs, bias])
    if not _keeps_speed(scope.implementation_of(node), scope.implementation_of(extended)):
        return var
    node.inputs.append(bias)
    scope.done.add(following.var)
    return following.var


def _bias_tensor(
    scope: Scope, operand: Var | Constant, node: Primitive, logical: tuple[int, ...]
) -> StoredTensor | None:
    """Return `operand` as the bias of `node`; None unless it is a constant along the bias axis."""
    tensor = scope.tensor(operand)
    if tensor.storage.kind not in ("weight", "const") or tensor.strides is not None:
        return None
    axis = _BIAS_AXIS[node.op] % len(logical)
    padded = (1,) * (len(logical) - len(tensor.shape)) + tensor.shape
    if padded != tuple(size if i == axis else 1 for i, size in enumerate(logical)):
        return None
    leading = len(node.output.shape) - 1 if node.op == "matmul" else 0
    return scope.view(tensor, (1,) * leading + (logical[axis],))


def _next_step(scope: Scope, var: Var) -> Step | None:
    """Return the next step that the primitive of `var` could compute as well, or None."""
    if var in scope.results:
        return None
    following = scope.only_consumer(var)
    if following is None:
        return _named_function(scope, var)
    match = as_eltwise(following.value)
    if match is not None and match[0].same_as(var):
        return Step(post_ops=(match[1].post_op(),), var=following.var)
    if scope.quantizes:
        step = stored(scope, following) or added(scope, following, var)
        if step is not None:
            return step
    post_op = as_binary_post_op(scope, following, var)
    if post_op is not None:
        return Step(post_ops=(post_op,), var=following.var)
    return _named_function(scope, var)


def _named_function(scope: Scope, var: Var) -> Step | None:
    """Recognise a function of `var` alone by its values, regardless of how it is spelled out.

    The region from `var` to a single variable that everything passes through is evaluated at
    samples.
    """
    known = {var: _SAMPLES}
    waiting = {var}
    order: list[Var] = []
    for binding in scope.bindings:
        if not any(binding is consumer for v in known for consumer in scope.consumers.get(v, [])):
            continue
        value = _evaluate(binding, known)
        if value is None or len(order) == _MAX_REGION:
            return None
        known[binding.var] = value
        order.append(binding.var)
        waiting.add(binding.var)
        waiting = {
            v for v in waiting if any(c.var not in known for c in scope.consumers.get(v, []))
        }
        closed = not waiting - {binding.var} and len(order) > 1
        if closed:
            for function, expected in _NAMED_FUNCTIONS:
                if np.allclose(value, expected, rtol=1e-4, atol=1e-5):
                    return Step(post_ops=(function.post_op(),), var=binding.var, skipped=order[:-1])
        if binding.var in scope.results:
            return None
    return None


def _evaluate(binding: relax.VarBinding, known: dict[Var, np.ndarray]) -> np.ndarray | None:
    """Evaluate an operator at the samples; None if it is not supported or has unknown operands."""
    function = _NUMPY.get(op_name(binding.value))
    if function is None:
        return None
    operands = []
    for argument in binding.value.args:
        number = None if isinstance(argument, Var) else scalar(argument)
        if isinstance(argument, Var) and argument in known:
            operands.append(known[argument])
        elif number is not None:
            operands.append(np.float64(number))
        else:
            return None
    with np.errstate(all="ignore"):
        return np.asarray(function(*operands))
