"""Windows of poolings and convolutions, clipped to the input that they slide over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, Expr, ModulePass, constant_of, op_name
from tvm_passes.normalize._expressions import (
    call_of,
    dtype_of,
    rewrite_functions,
    shape_of,
)
from tvm_passes.normalize.windows import WindowAxis

_POOLINGS = frozenset(f"nn.{kind}_pool{rank}d" for kind in ("avg", "max") for rank in (1, 2, 3))
"""Pooling operators."""
_CONVOLUTIONS = frozenset(f"nn.conv{rank}d" for rank in (1, 2, 3))
"""Convolution operators."""
_SPATIAL = "DHW"
"""Letters of spatial axes in layouts."""


def _places(layout: str) -> list[int]:
    """Return the spatial axes of a layout."""
    return [place for place, name in enumerate(layout) if name in _SPATIAL]


def _window_axes(
    call: Call, kernel: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
) -> list[WindowAxis]:
    """Return the geometry of each spatial axis."""
    attrs, rank = call.attrs, len(kernel)
    padding = [int(width) for width in attrs.padding]
    return [
        WindowAxis(
            size=inputs[axis],
            kernel=kernel[axis],
            stride=int(attrs.strides[axis]),
            dilation=int(attrs.dilation[axis]),
            before=padding[axis],
            after=padding[rank + axis],
            outputs=outputs[axis],
        )
        for axis in range(rank)
    ]


def _is_oversized(axis: WindowAxis) -> bool:
    """Return whether some taps never meet the input, or the padding exceeds every window's need."""
    clipped = axis.clipped
    reach = (axis.kernel - 1) * axis.dilation
    return clipped.kernel < axis.kernel or max(axis.before, axis.after) > max(reach, axis.stride)


@mutator
class _Clipper(PyExprMutator):
    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        name = op_name(call)
        if name not in _POOLINGS | _CONVOLUTIONS:
            return call
        if shape_of(call) is None or shape_of(call.args[0]) is None:
            return call
        return self._pooling(call) if name in _POOLINGS else self._convolution(call)

    # Poolings.

    def _pooling(self, call: Call) -> Expr:
        attrs = call.attrs
        places = _places(attrs.layout)
        shape, result = shape_of(call.args[0]), shape_of(call)
        if attrs.layout != attrs.out_layout or shape is None or result is None or 0 in result:
            return call
        kernel = [int(size) for size in attrs.pool_size]
        axes = _window_axes(call, kernel, [shape[p] for p in places], [result[p] for p in places])
        averages = "avg" in op_name(call)
        uneven = averages and bool(attrs.count_include_pad) and bool(attrs.ceil_mode)
        if not uneven and not any(map(_is_oversized, axes)):
            return call
        clipped = [axis.clipped for axis in axes]
        if clipped == axes and not attrs.ceil_mode:
            return call
        if not averages and not dtype_of(call).startswith("float"):
            return self._pool(call, call.args[0], clipped)
        data = call.args[0]
        for position, axis in enumerate(clipped):
            if axis.is_sparse:
                data = self._gathered(data, places[position], axis, averages=averages)
                clipped[position] = _single(axis)
        if not averages:
            return self._pool(call, data, clipped)
        counts = [axis.counts(with_padding=bool(attrs.count_include_pad)) for axis in axes]
        return self._average(call, data, clipped, counts)

    def _pool(
        self, call: Call, data: Expr, axes: Sequence[WindowAxis], *, with_padding: bool = True
    ) -> Expr:
        """Emit the pooling with windows that fit.

        Padding alone determines its number of outputs; nothing is rounded up.
        """
        attrs = call.attrs
        if all(axis.kernel == axis.stride == 1 and not axis.before + axis.after for axis in axes):
            return data
        function = getattr(relax.op.nn, op_name(call).removeprefix("nn."))
        return function(
            data,
            [axis.kernel for axis in axes],
            [axis.stride for axis in axes],
            [*(axis.before for axis in axes), *(axis.after for axis in axes)],
            [axis.dilation for axis in axes],
            False,
            with_padding,
            attrs.layout,
            attrs.out_layout,
        )

    def _average(
        self, call: Call, data: Expr, axes: Sequence[WindowAxis], counts: Sequence[np.ndarray]
    ) -> Expr:
        """Emit the average whose divisor is the product of `counts`, as the simplest operator."""
        pairs = list(zip(axes, counts, strict=True))
        if all((count == axis.kernel).all() for axis, count in pairs):
            return self._pool(call, data, axes)
        if all((count == axis.counts(with_padding=False)).all() for axis, count in pairs):
            return self._pool(call, data, axes, with_padding=False)
        places, rank = _places(call.attrs.layout), len(call.attrs.layout)
        factors = []
        for place, (axis, count) in zip(places, pairs, strict=True):
            factor = axis.kernel / np.maximum(count, 1)
            factor = factor[:1] if (factor == factor[0]).all() else factor
            factors.append(factor.reshape([-1 if at == place else 1 for at in range(rank)]))
        factor = reduce(np.multiply, factors)
        factor = factor.reshape(()) if factor.size == 1 else factor
        pooled = self.builder_.emit(self._pool(call, data, axes))
        return relax.op.multiply(pooled, constant_of(factor.astype(dtype_of(call))))

    def _gathered(self, data: Expr, place: int, axis: WindowAxis, *, averages: bool) -> Expr:
        """Reduce each window of one axis to the sum or maximum of the elements that it reads."""
        emit, rank = self.builder_.emit, len(shape_of(data) or ())
        neutral = 0.0 if averages else float(np.finfo(_numpy_float(dtype_of(data))).min)
        widths = [0] * (2 * rank)
        widths[2 * place + 1] = 1
        padded = emit(relax.op.nn.pad(data, widths, "constant", neutral))
        positions = axis.positions
        shape = list(shape_of(data) or ())
        read = emit(relax.op.take(padded, constant_of(positions.reshape(-1)), place, mode="clip"))
        split = emit(
            relax.op.reshape(read, [*shape[:place], *positions.shape, *shape[place + 1 :]])
        )
        combine = relax.op.sum if averages else relax.op.max
        return emit(combine(split, [place + 1]))

    # Convolutions.

    def _convolution(self, call: Call) -> Expr:
        attrs = call.attrs
        places, kernel_places = _places(attrs.data_layout), _places(attrs.kernel_layout)
        shape, result, weight = shape_of(call.args[0]), shape_of(call), shape_of(call.args[1])
        if shape is None or result is None or weight is None or 0 in result:
            return call
        if attrs.data_layout != attrs.out_layout:
            return call
        axes = _window_axes(
            call,
            [weight[place] for place in kernel_places],
            [shape[place] for place in places],
            [result[place] for place in places],
        )
        trimmed = [_trimmed(axis) for axis in axes]
        if not any(map(_is_oversized, axes)) and trimmed == axes:
            return call
        if any(axis.outputs == 0 for axis in trimmed):
            return relax.op.zeros(result, dtype_of(call))
        clipped = [axis.clipped for axis in trimmed]
        cropped = self._cropped(call.args[1], kernel_places, [axis.kept for axis in trimmed])
        if cropped is None or clipped == axes:
            return call
        value = self._convolve(call, cropped, clipped)
        return self._widened(value, len(result), places, axes, trimmed)

    def _cropped(self, weight: Expr, places: list[int], kept: Sequence[slice]) -> Expr | None:
        """Return the kept taps of a convolution; None if its weights are quantised."""
        shape = shape_of(weight) or ()
        if all((k.start, k.stop) == (0, shape[p]) for k, p in zip(kept, places, strict=True)):
            return weight
        if call_of(self, weight, "dequantize") is not None:
            return None
        if isinstance(weight, Constant):
            index = [slice(None)] * len(shape)
            for place, taps in zip(places, kept, strict=True):
                index[place] = taps
            return constant_of(array_of(weight)[tuple(index)])
        begins, ends = [taps.start for taps in kept], [taps.stop for taps in kept]
        return self.builder_.emit(relax.op.strided_slice(weight, places, begins, ends))

    @staticmethod
    def _convolve(call: Call, weight: Expr, axes: Sequence[WindowAxis]) -> Expr:
        attrs = call.attrs
        function = getattr(relax.op.nn, op_name(call).removeprefix("nn."))
        return function(
            call.args[0],
            weight,
            [axis.stride for axis in axes],
            [*(axis.before for axis in axes), *(axis.after for axis in axes)],
            [axis.dilation for axis in axes],
            int(attrs.groups),
            attrs.data_layout,
            attrs.kernel_layout,
            attrs.out_layout,
            attrs.out_dtype,
        )

    def _widened(
        self,
        value: Expr,
        rank: int,
        places: Sequence[int],
        axes: Sequence[WindowAxis],
        trimmed: Sequence[WindowAxis],
    ) -> Expr:
        """Pad the computed outputs with zeros to the original extent."""
        if all(a.outputs == b.outputs for a, b in zip(axes, trimmed, strict=True)):
            return value
        widths = [0] * (2 * rank)
        for place, axis in zip(places, axes, strict=True):
            if _is_mostly_dead(axis):
                widths[2 * place : 2 * place + 2] = axis.live.start, axis.outputs - axis.live.stop
        return relax.op.nn.pad(self.builder_.emit(value), widths)


def _numpy_float(dtype: str) -> str:
    """Return a type that numpy knows and whose lowest number `dtype` can represent."""
    return "float16" if dtype == "float16" else "float32"


def _single(axis: WindowAxis) -> WindowAxis:
    """Return the remaining pooling along an axis whose windows are already reduced."""
    return replace(axis, size=axis.outputs, kernel=1, stride=1, dilation=1, before=0, after=0)


def _is_mostly_dead(axis: WindowAxis) -> bool:
    """Return whether at least half of the outputs read only padding."""
    live = axis.live
    return 2 * (live.stop - live.start) <= axis.outputs


def _trimmed(axis: WindowAxis) -> WindowAxis:
    """Return the axis without outputs that read only padding, if these are the majority."""
    live = axis.live
    if not _is_mostly_dead(axis):
        return axis
    return replace(
        axis,
        outputs=live.stop - live.start,
        before=axis.before - live.start * axis.stride,
        after=0,
    )


@tvm.transform.module_pass(opt_level=0, name="ClipWindows")
class ClipWindows(ModulePass):
    """Crop windows that reach beyond the input: nothing outside of it is padded or looped over.

    Before::

        lv = R.nn.avg_pool2d(
            x, pool_size=[1280, 1280], strides=[1280, 1280], ceil_mode=True
        )  # x is 7×7

    After::

        lv = R.nn.avg_pool2d(x, pool_size=[7, 7], strides=[1, 1])

    Taps of a convolution that only ever meet padding are cut from its weights. If the divisor of an
    average counts other elements than the smaller window has, the result is multiplied by their
    ratio. Some clipped windows still span mostly padding along an axis (strides larger than the
    input, outputs by the thousand). They are gathered from the elements that they read.

    Requires
        Nothing.

    Ensures
        The same values. The padded extent of an axis is at most ``SPARSE`` times its own. No
        average pooling rounds its extent up while it counts padding.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, lambda module, _function: _Clipper(module))
