"""Emitters of pooling, reductions, softmax and resizing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvm import relax

from tvm_passes.ir import static_shape
from tvm_passes.onednn.contractions import ints, window
from tvm_passes.onednn.epilogue import finish
from tvm_passes.onednn.graph import Primitive
from tvm_passes.onednn.quantized import average
from tvm_passes.onednn.scope import Scope


def _pool(scope: Scope, binding: relax.VarBinding, algorithm: str) -> None:
    call = binding.value
    if str(call.attrs.layout) not in ("NCW", "NCHW", "NCDHW"):
        raise scope.fail(f"layout {call.attrs.layout}", "the logical form NCHW")
    shape, pooled = static_shape(call.args[0].ty), static_shape(binding.var.ty)
    sizes = {**window(call), "kernel": ints(call.attrs.pool_size)}
    declared = sizes["padding_after"]
    sizes["padding_after"] = needed = _padding_after(shape[2:], pooled[2:], sizes)
    overhang = any(after > said for after, said in zip(needed, declared, strict=True))
    if overhang and algorithm == "avg_include_padding":
        raise scope.fail("ceil_mode with count_include_pad", "one of them")
    finish(scope, binding.var, _pooling(scope, binding, {**sizes, "algorithm": algorithm}))


def _pooling(scope: Scope, binding: relax.VarBinding, attrs: dict[str, object]) -> Primitive:
    on_integers = average(scope, binding, attrs) if scope.quantizes else None
    if on_integers is not None:
        return on_integers
    source = scope.activation(binding.value.args[0])
    result = scope.result(static_shape(binding.var.ty))
    return scope.node("pooling", [source], result, attrs)


def _padding_after(
    extents: Sequence[int], results: Sequence[int], sizes: Mapping[str, Sequence[int]]
) -> list[int]:
    """Compute the padding with which oneDNN, which rounds down, yields `results`.

    It is negative if elements are left over.
    """
    return [
        (results[axis] - 1) * sizes["strides"][axis]
        + (sizes["kernel"][axis] - 1) * (sizes["dilation"][axis] + 1)
        + 1
        - extents[axis]
        - sizes["padding_before"][axis]
        for axis in range(len(extents))
    ]


def max_pool(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``nn.max_pool1d`` to ``nn.max_pool3d``."""
    _pool(scope, binding, "max")


def avg_pool(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``nn.avg_pool1d`` to ``nn.avg_pool3d``."""
    included = bool(binding.value.attrs.count_include_pad)
    _pool(scope, binding, "avg_include_padding" if included else "avg")


def _global_average(shape: Sequence[int]) -> dict[str, object]:
    """Return the attributes of an average over all spatial axes."""
    spatial = len(shape) - 2
    return {
        "algorithm": "avg",
        "kernel": list(shape[2:]),
        "strides": [1] * spatial,
        "dilation": [0] * spatial,
        "padding_before": [0] * spatial,
        "padding_after": [0] * spatial,
    }


def adaptive_avg_pool(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``nn.adaptive_avg_pool2d`` to a single element per channel."""
    pooled = static_shape(binding.var.ty)
    if any(size != 1 for size in pooled[2:]):
        raise scope.fail(f"output size {pooled[2:]}", "1 along every axis")
    attrs = _global_average(static_shape(binding.value.args[0].ty))
    finish(scope, binding.var, _pooling(scope, binding, attrs))


def reduction(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``mean``, ``sum``, ``max`` or ``min`` over some axes."""
    call = binding.value
    full, shape = static_shape(call.args[0].ty), static_shape(binding.var.ty)
    rank = len(full)
    axes = range(rank) if call.attrs.axis is None else [a % rank for a in ints(call.attrs.axis)]
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(full))
    pools = rank == 4 and sorted(axes) == [2, 3] and scope.operator == "mean"
    if pools and shape == kept:
        finish(scope, binding.var, _pooling(scope, binding, _global_average(full)))
        return
    source = scope.activation(call.args[0])
    result = scope.result(kept)
    kind = "pooling" if pools else "reduction"
    attrs = _global_average(full) if pools else {"algorithm": scope.operator}
    node = scope.node(kind, [source], result, attrs)
    if shape == kept:
        finish(scope, binding.var, node)
        return
    scope.graph.nodes.append(node)
    flat = scope.view(scope.plain(result), shape)
    scope.values[binding.var] = scope.conform(flat)


def softmax(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``nn.softmax`` or ``nn.log_softmax``."""
    call = binding.value
    source = scope.activation(call.args[0])
    attrs = {
        "axis": int(call.attrs.axis) % len(source.shape),
        "log": int(scope.operator == "nn.log_softmax"),
    }
    node = scope.node("softmax", [source], scope.result(source.shape), attrs)
    finish(scope, binding.var, node)


def layer_norm(scope: Scope, _binding: relax.VarBinding) -> None:
    """Decline ``nn.layer_norm``: oneDNN rounds the mean before it subtracts it.

    A mean far above the deviation costs digits: an error of 6e-4 at a mean of 1e4 deviations. The
    kernel of the unit cpu has an error of 6e-8 and is as fast.
    """
    raise scope.fail("a mean that oneDNN rounds", "a mean of differences: the unit cpu has one")


def resize(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``image.resize2d`` if oneDNN samples at the same points."""
    call = binding.value
    source = scope.activation(call.args[0])
    result = scope.result(static_shape(binding.var.ty))
    method = str(call.attrs.method)
    mode = str(call.attrs.coordinate_transformation_mode)
    rounding = str(call.attrs.rounding_method)
    whole = all(b % a == 0 for a, b in zip(source.shape[2:], result.shape[2:], strict=True))
    same = {
        "linear": mode in ("half_pixel", "pytorch_half_pixel"),
        "nearest_neighbor": whole
        and (
            (mode == "half_pixel" and rounding.startswith("round"))
            or (mode == "asymmetric" and rounding == "floor")
        ),
    }
    if str(call.attrs.layout) != "NCHW" or not same.get(method, False):
        raise scope.fail(
            f"{method} resizing with {mode}", "linear with half_pixel, or nearest by whole factors"
        )
    attrs = {"algorithm": "linear" if method == "linear" else "nearest"}
    finish(scope, binding.var, scope.node("resampling", [source], result, attrs))


EMITTERS = {
    "image.resize2d": resize,
    "max": reduction,
    "mean": reduction,
    "min": reduction,
    "nn.adaptive_avg_pool2d": adaptive_avg_pool,
    "nn.avg_pool1d": avg_pool,
    "nn.avg_pool2d": avg_pool,
    "nn.avg_pool3d": avg_pool,
    "nn.layer_norm": layer_norm,
    "nn.log_softmax": softmax,
    "nn.max_pool1d": max_pool,
    "nn.max_pool2d": max_pool,
    "nn.max_pool3d": max_pool,
    "nn.softmax": softmax,
    "sum": reduction,
}
"""Emitter by Relax operator."""
