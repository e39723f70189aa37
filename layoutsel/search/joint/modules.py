"""Operations of search spaces as PyTorch modules whose networks may use their first channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from layoutsel.search.operations import OperationShape
from layoutsel.search.parts import HEAD, PartSignature

Arrays = list[np.ndarray]
"""Weights in the order in which the operation's ONNX nodes read them."""


class NormalisedConvolution(nn.Module):
    """Convolution, batch normalisation and Relu; inputs and outputs are the first channels.

    Parameters
    ----------
    geometry
        Shapes with the most channels.
    size
        Size of the kernel.
    is_depthwise
        True to convolve each channel alone.
    """

    def __init__(self, geometry: OperationShape, size: int, *, is_depthwise: bool = False) -> None:
        super().__init__()
        height, width = geometry.kernel(size)
        self._padding, self._stride = (height // 2, width // 2), tuple(geometry.stride)
        self.is_depthwise = is_depthwise
        made, read = geometry.channels, 1 if is_depthwise else geometry.input_shape[0]
        self.weight = nn.Parameter(torch.empty(made, read, height, width))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.norm = nn.BatchNorm2d(made)

    def forward(self, x: torch.Tensor, made: int) -> torch.Tensor:
        """Apply the first filters to a tensor (N, channels, height, width)."""
        read = x.shape[1]
        made, groups = (read, read) if self.is_depthwise else (made, 1)
        weight = self.weight[:made, : read // groups]
        x = functional.conv2d(x, weight, None, self._stride, self._padding, groups=groups)
        return functional.relu(self._normalised(x))

    def arrays(self, read: int, made: int) -> Arrays:
        """Filters and biases with the normalisation folded into them."""
        made, read = (read, 1) if self.is_depthwise else (made, read)
        norm = self.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps))[:made]
        weight = self.weight[:made, :read] * scale[:, None, None, None]
        bias = norm.bias[:made] - norm.running_mean[:made] * scale
        return [weight.detach().numpy(), bias.detach().numpy()]

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        norm, made = self.norm, x.shape[1]
        assert norm.running_var is not None
        assert norm.running_mean is not None
        return functional.batch_norm(
            x,
            norm.running_mean[:made],
            norm.running_var[:made],
            norm.weight[:made],
            norm.bias[:made],
            training=norm.training,
            momentum=norm.momentum or 0.0,
            eps=norm.eps,
        )


class Separable(nn.Module):
    """Depthwise convolution with the stride, then one with a kernel of 1.

    Parameters
    ----------
    geometry
        Shapes with the most channels.
    size
        Size of the depthwise kernel.
    """

    def __init__(self, geometry: OperationShape, size: int) -> None:
        super().__init__()
        read = geometry.input_shape
        depthwise = OperationShape(input_shape=read, channels=read[0], stride=geometry.stride)
        pointwise = OperationShape(input_shape=depthwise.output_shape, channels=geometry.channels)
        self.depthwise = NormalisedConvolution(depthwise, size, is_depthwise=True)
        self.pointwise = NormalisedConvolution(pointwise, 1)

    def forward(self, x: torch.Tensor, made: int) -> torch.Tensor:
        """Apply both to a tensor (N, channels, height, width)."""
        convolved: torch.Tensor = self.pointwise(self.depthwise(x, made), made)
        return convolved

    def arrays(self, read: int, made: int) -> Arrays:
        """Filters and biases of both."""
        return [*self.depthwise.arrays(read, made), *self.pointwise.arrays(read, made)]


class Pooling(nn.Module):
    """Pooling of windows of 3 points; averages leave out the points of the padding.

    Parameters
    ----------
    geometry
        Shapes of the tensors.
    is_mean
        True for averages, False for maxima.
    """

    def __init__(self, geometry: OperationShape, *, is_mean: bool) -> None:
        super().__init__()
        kernel = geometry.kernel(3)
        options = {"stride": tuple(geometry.stride), "padding": (kernel[0] // 2, kernel[1] // 2)}
        self.pool: nn.Module = (
            nn.AvgPool2d(kernel, **options, count_include_pad=False)
            if is_mean
            else nn.MaxPool2d(kernel, **options)
        )

    def forward(self, x: torch.Tensor, made: int) -> torch.Tensor:
        """Pool a tensor (N, channels, height, width)."""
        del made
        pooled: torch.Tensor = self.pool(x)
        return pooled

    def arrays(self, read: int, made: int) -> Arrays:
        """No weights."""
        del read, made
        return []


class MeanHead(nn.Module):
    """Mean over height and width, and a linear layer.

    Parameters
    ----------
    geometry
        Shape of the input with the most channels; the output channels are the classes.
    """

    def __init__(self, geometry: OperationShape) -> None:
        super().__init__()
        self.linear = nn.Linear(geometry.input_shape[0], geometry.channels)

    def forward(self, x: torch.Tensor, made: int) -> torch.Tensor:
        """Logits (N, classes) of a tensor (N, channels, height, width)."""
        del made
        weight = self.linear.weight[:, : x.shape[1]]
        return functional.linear(x.mean((2, 3)), weight, self.linear.bias)

    def arrays(self, read: int, made: int) -> Arrays:
        """Matrix (classes, channels) and bias."""
        del made
        return [self.linear.weight[:, :read].detach().numpy(), self.linear.bias.detach().numpy()]


MODULES: Mapping[str, Callable[[OperationShape], nn.Module]] = {
    "conv1": partial(NormalisedConvolution, size=1),
    "conv3": partial(NormalisedConvolution, size=3),
    "conv5": partial(NormalisedConvolution, size=5),
    "separable3": partial(Separable, size=3),
    "separable5": partial(Separable, size=5),
    "max3": partial(Pooling, is_mean=False),
    "avg3": partial(Pooling, is_mean=True),
    HEAD: MeanHead,
}
"""Modules by operation, made from the shapes with the most channels."""


def module_of(signature: PartSignature) -> nn.Module:
    """Make the module of an operation."""
    return MODULES[signature.operation](signature.geometry)
