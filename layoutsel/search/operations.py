"""Operations that a search chooses from, and their writing as ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef

Shape = tuple[int, ...]
"""Channels, height and width of a tensor of one sample."""
Stride = tuple[int, ...]
"""Stride along height and width."""


@dataclass(frozen=True, kw_only=True)
class OperationShape:
    """Tensors that one operation reads and makes."""

    input_shape: Shape
    """Shape of each input."""
    channels: int
    """Channels of the output."""
    stride: Stride = (1, 1)
    """Stride along height and width."""

    @property
    def output_shape(self) -> Shape:
        """Shape of the output; heights and widths are rounded up."""
        _, *axes = self.input_shape
        strided = (-(-size // step) for size, step in zip(axes, self.stride, strict=True))
        return (self.channels, *strided)

    @property
    def is_same_shape(self) -> bool:
        """True if the output has the shape of an input."""
        return self.output_shape == self.input_shape

    def kernel(self, size: int) -> tuple[int, int]:
        """Height and width of a kernel; signals have height 1, and so have their kernels."""
        return (1 if self.input_shape[1] == 1 else size, size)


Write = Callable[[NetworkBuilder, TensorRef, OperationShape], TensorRef]
"""Function that adds an operation on a tensor to an ONNX graph."""


@dataclass(frozen=True, kw_only=True)
class OperationKind:
    """A kind of operation between two nodes of a cell."""

    changes_channels: bool = False
    """True if inputs and outputs may differ in their number of channels."""
    strides: bool = False
    """True if strides other than 1 are possible."""
    weights: Callable[[OperationShape], int] = lambda _: 0
    """Number of its weights, with one bias for each channel of a convolution."""
    write: Write | None = None
    """Writing as ONNX with random weights; None if nothing is computed."""

    def allows(self, geometry: OperationShape) -> bool:
        """True if the operation can read and make such tensors."""
        same_channels = geometry.channels == geometry.input_shape[0]
        is_dense = all(step == 1 for step in geometry.stride)
        return (same_channels or self.changes_channels) and (is_dense or self.strides)


def _convolve(
    builder: NetworkBuilder,
    value: TensorRef,
    geometry: OperationShape,
    size: int,
    *,
    groups: int = 1,
) -> TensorRef:
    """Add a convolution with bias, into which batch normalisation is folded, and Relu."""
    height, width = kernel = geometry.kernel(size)
    rows, columns = height // 2, width // 2
    channels = geometry.channels
    made = builder.op(
        "Conv",
        value,
        (channels, geometry.input_shape[0] // groups, height, width),
        (channels,),
        channels=channels,
        kernel_shape=list(kernel),
        pads=[rows, columns, rows, columns],
        strides=list(geometry.stride),
        group=groups,
    )
    return builder.op("Relu", made)


def _convolution(size: int) -> OperationKind:
    def weights(geometry: OperationShape) -> int:
        height, width = geometry.kernel(size)
        return geometry.channels * (geometry.input_shape[0] * height * width + 1)

    return OperationKind(
        changes_channels=True,
        strides=True,
        weights=weights,
        write=lambda builder, value, geometry: _convolve(builder, value, geometry, size),
    )


def _separable(size: int) -> OperationKind:
    """Depthwise convolution with the stride, then one with a kernel of 1; each with Relu."""

    def steps(geometry: OperationShape) -> tuple[OperationShape, OperationShape]:
        read = geometry.input_shape
        depthwise = OperationShape(input_shape=read, channels=read[0], stride=geometry.stride)
        return depthwise, OperationShape(
            input_shape=depthwise.output_shape, channels=geometry.channels
        )

    def weights(geometry: OperationShape) -> int:
        height, width = geometry.kernel(size)
        read = geometry.input_shape[0]
        return read * (height * width + 1) + geometry.channels * (read + 1)

    def write(builder: NetworkBuilder, value: TensorRef, geometry: OperationShape) -> TensorRef:
        depthwise, pointwise = steps(geometry)
        made = _convolve(builder, value, depthwise, size, groups=geometry.input_shape[0])
        return _convolve(builder, made, pointwise, 1)

    return OperationKind(changes_channels=True, strides=True, weights=weights, write=write)


def _pooling(operator: str) -> OperationKind:
    """Pooling of windows of 3 points; averages leave out the points of the padding."""

    def write(builder: NetworkBuilder, value: TensorRef, geometry: OperationShape) -> TensorRef:
        height, width = kernel = geometry.kernel(3)
        rows, columns = height // 2, width // 2
        return builder.op(
            operator,
            value,
            kernel_shape=list(kernel),
            pads=[rows, columns, rows, columns],
            strides=list(geometry.stride),
        )

    return OperationKind(strides=True, write=write)


NONE, SKIP, STEM = "none", "skip", "conv3"
"""Operations with a role of their own: no operation, no change, and the first of a network."""
OPERATIONS: Mapping[str, OperationKind] = {
    NONE: OperationKind(changes_channels=True, strides=True),
    SKIP: OperationKind(),
    "conv1": _convolution(1),
    "conv3": _convolution(3),
    "conv5": _convolution(5),
    "separable3": _separable(3),
    "separable5": _separable(5),
    "max3": _pooling("MaxPool"),
    "avg3": _pooling("AveragePool"),
}
"""Operations that a cell may offer, by name."""
