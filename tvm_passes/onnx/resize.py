"""Converter of Resize: to TVM's operator if that is exact, else to a product or gather per axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax import Expr
from tvm.relax.frontend.onnx import onnx_frontend

from tvm_passes.errors import UnsupportedModel
from tvm_passes.onnx.padding import static_shape
from tvm_passes.onnx.support import array_of, constant, stock

_IN_TVM = frozenset({"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"})
"""Coordinate transformations that TVM's operator gets right if sizes determine the scale."""


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Resizing of one axis."""

    axis: int
    before: int
    """Extent before, elements."""
    after: int
    """Extent after, elements."""
    scale: float
    """Scale in the model; ``after / before`` up to rounding."""

    @property
    def suits_tvm(self) -> bool:
        """True if TVM computes this axis correctly: it takes the scale from the extents.

        TVM also divides by ``after - 1``.
        """
        return self.after > 1 and abs(self.scale * self.before - self.after) < 1e-4


def _half_pixel(axis: _Axis, x: np.ndarray) -> np.ndarray:
    return (x + 0.5) / axis.scale - 0.5


def _symmetric(axis: _Axis, x: np.ndarray) -> np.ndarray:
    one = np.float32(1)
    adjustment = one * axis.after / (one * axis.scale * axis.before)
    offset = one * axis.before / 2 * (one - adjustment)
    return offset + (x + 0.5) / axis.scale - 0.5


def _align_corners(axis: _Axis, x: np.ndarray) -> np.ndarray:
    return x * (axis.before - 1) / max(axis.after - 1, 1)


def _pytorch(axis: _Axis, x: np.ndarray) -> np.ndarray:
    return _half_pixel(axis, x) if axis.after > 1 else np.zeros_like(x)


_COORDINATES: Mapping[str, Callable[[_Axis, np.ndarray], np.ndarray]] = {
    "align_corners": _align_corners,
    "asymmetric": lambda axis, x: x / axis.scale,
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": _pytorch,
}
"""Where in the input a position of the output lies (ONNX operator specification, Resize)."""

SIMPLE = "simple"
"""Rounding of Resize in operator set 10: up along axes that shrink, down along axes that grow."""

_ROUNDING: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
}


def _linear(distance: np.ndarray, _alpha: float) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(distance: np.ndarray, alpha: float) -> np.ndarray:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981."""
    d = np.abs(distance)
    near = ((alpha + 2) * d - (alpha + 3)) * d * d + 1
    far = ((alpha * d - 5 * alpha) * d + 8 * alpha) * d - 4 * alpha
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


_KERNELS: Mapping[str, tuple[int, Callable[[np.ndarray, float], np.ndarray]]] = {
    "linear": (2, _linear),
    "cubic": (4, _cubic),
}
"""Taps of an interpolation and their weights by distance."""


@dataclass(frozen=True, kw_only=True)
class _Resize:
    """The attributes of a Resize."""

    mode: str
    coordinates: str
    rounding: str
    alpha: float
    exclude_outside: bool

    def positions(self, axis: _Axis) -> np.ndarray:
        """Input coordinate of each output position, in single precision like ONNX Runtime's."""
        x = np.arange(axis.after, dtype="float32")
        return _COORDINATES[self.coordinates](axis, x).astype("float32")

    def indices(self, axis: _Axis) -> np.ndarray:
        """Nearest input position of each output position."""
        rounding = self.rounding
        if rounding == SIMPLE:
            rounding = "ceil" if axis.scale < 1 else "floor"
        nearest = _ROUNDING[rounding](self.positions(axis))
        return np.clip(nearest, 0, axis.before - 1).astype("int64")

    def matrix(self, axis: _Axis) -> np.ndarray:
        """Weights of shape (before, after) of input positions in output positions."""
        taps, weight = _KERNELS[self.mode]
        positions = self.positions(axis).astype("float64")
        first = np.floor(positions).astype("int64") - taps // 2 + 1
        result = np.zeros((axis.before, axis.after))
        columns = np.arange(axis.after)
        for tap in range(taps):
            rows = first + tap
            weights = weight(positions - rows, self.alpha)
            if self.exclude_outside:
                weights = np.where((rows >= 0) & (rows < axis.before), weights, 0)
            np.add.at(result, (np.clip(rows, 0, axis.before - 1), columns), weights)
        return result / result.sum(axis=0) if self.exclude_outside else result


def convert(
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    state: Any,
    opset: int,
) -> Expr:
    """Convert a Resize with constant scales or sizes.

    Raises
    ------
    UnsupportedModel
        If scales and sizes are computed from data, for ``antialias``, or for a crop that TVM does
        not support.
    """
    if attributes.get("antialias", 0):
        raise UnsupportedModel("attribute antialias is 1; expected 0")
    data = inputs[0]
    resized = _resized_axes(inputs, attributes, opset)
    coordinates = _text(attributes, "coordinate_transformation_mode", "half_pixel")
    mode = _text(attributes, "mode", "nearest")
    rank = len(static_shape(data))
    spatial = rank in (4, 5) and all(axis.axis >= 2 for axis in resized)
    if coordinates == "tf_crop_and_resize":
        if not spatial or "axes" in attributes:
            raise UnsupportedModel("tf_crop_and_resize is known for all axes of an image only")
        return _by_tvm(builder, inputs, attributes, state, resized)
    rounding = _text(attributes, "nearest_mode", "round_prefer_floor")
    if rounding == SIMPLE and all(axis.scale >= 1 for axis in resized):
        rounding = "floor"
        attributes["nearest_mode"] = rounding.encode()
    divides_by_zero = coordinates == "align_corners" and 1 in static_shape(data)[2:]
    known = coordinates in _IN_TVM and rounding != SIMPLE and not divides_by_zero
    if spatial and known and all(axis.suits_tvm for axis in resized):
        return _by_tvm(builder, inputs, attributes, state, resized)
    resize = _Resize(
        mode=mode,
        coordinates=coordinates,
        rounding=rounding,
        alpha=attributes.get("cubic_coeff_a", -0.75),
        exclude_outside=bool(attributes.get("exclude_outside", 0)),
    )
    for axis in resized:
        data = builder.emit(_along(builder, data, axis, resize))
    return data


def _along(builder: relax.BlockBuilder, data: Expr, axis: _Axis, resize: _Resize) -> Expr:
    if resize.mode == "nearest":
        return relax.op.take(data, constant(resize.indices(axis), "int64"), axis.axis, mode="clip")
    rank = len(static_shape(data))
    order = [*(index for index in range(rank) if index != axis.axis), axis.axis]
    weights = constant(resize.matrix(axis), data.ty.dtype)
    rows = builder.emit(relax.op.permute_dims(data, order))
    back = [order.index(index) for index in range(rank)]
    return relax.op.permute_dims(builder.emit(relax.op.matmul(rows, weights)), back)


def _by_tvm(
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    state: Any,
    resized: Sequence[_Axis],
) -> Expr:
    data, roi = inputs[0], inputs[1] if len(inputs) > 3 else None
    sizes = list(static_shape(data))
    for axis in resized:
        sizes[axis.axis] = axis.after
    known = array_of(roi)
    if known is not None and not known.size:
        roi = None
    ours = ("axes", "keep_aspect_ratio_policy", "antialias")
    kept = {name: value for name, value in attributes.items() if name not in ours}
    arguments = onnx_frontend.onnx_input([data, roi, None, constant(sizes, "int64")])
    return stock("Resize")(builder, arguments, kept, state, 18)


def _resized_axes(inputs: Sequence[Any], attributes: Mapping[str, Any], opset: int) -> list[_Axis]:
    """Return the changes along each axis, without axes that stay unchanged."""
    data = inputs[0]
    shape = static_shape(data)
    scales, sizes = (inputs[1], None) if opset < 11 else (inputs[2], inputs[3])
    axes = [axis % len(shape) for axis in attributes.get("axes", range(len(shape)))]
    known_scales, known_sizes = array_of(scales), array_of(sizes)
    before = [shape[axis] for axis in axes]
    if known_sizes is not None and known_sizes.size:
        after, factors = _from_sizes(before, known_sizes, attributes)
    elif known_scales is not None and known_scales.size:
        factors = [float(scale) for scale in known_scales]
        # In single precision, as ONNX Runtime: 2.6 × 5 is 13 there, and less in double precision.
        after = [int(np.floor(np.float32(f) * b)) for f, b in zip(factors, before, strict=True)]
    else:
        raise UnsupportedModel("its scales or sizes are computed from data; expected constants")
    if min(after) < 1:
        raise UnsupportedModel(f"its result would have sizes {after}; expected positive ones")
    crops = _text(attributes, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
    return [
        _Axis(axis=a, before=b, after=n, scale=f)
        for a, b, n, f in zip(axes, before, after, factors, strict=True)
        if (b, f) != (n, 1.0) or (crops and a >= 2)
    ]


def _from_sizes(
    before: Sequence[int], sizes: np.ndarray, attributes: Mapping[str, Any]
) -> tuple[list[int], list[float]]:
    """Return extents and scales of a model that states sizes."""
    after = [int(size) for size in sizes]
    factors = [float(np.float32(n) / np.float32(b)) for n, b in zip(after, before, strict=True)]
    policy = _text(attributes, "keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return after, factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [int(np.floor(factor * b + 0.5)) for b in before], [factor] * len(before)


def _text(attributes: Mapping[str, Any], name: str, otherwise: str) -> str:
    return attributes.get(name, otherwise.encode()).decode()
