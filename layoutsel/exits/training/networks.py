"""Residual networks for images and signals."""

from __future__ import annotations

import torch
from torch import nn

from layoutsel.exits.training.heads import head
from layoutsel.exits.training.settings import NetworkShape


class ResidualBlock(nn.Module):
    """Two convolutions with batch normalisation, added to their input."""

    def __init__(self, channels: int, made: int, stride: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        strides = _strides(stride, kernel)
        self.first = _convolution(channels, made, strides, kernel)
        self.second = _convolution(made, made, (1, 1), kernel)
        is_same = channels == made and stride == 1
        self.shortcut = nn.Identity() if is_same else _convolution(channels, made, strides, (1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block to a tensor (N, channels, height, width)."""
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """Residual network with one output, the final exit's logits (N, classes).

    Parameters
    ----------
    shape
        Shape of the network.
    input_shape
        Channels, height and width of an input.
    classes
        Number of classes.
    """

    def __init__(
        self, shape: NetworkShape, input_shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__()
        channels, *axes = input_shape
        self.stem = _convolution(channels, shape.stem, (1, 1), shape.kernel)
        channels, blocks = shape.stem, []
        for width, stride in shape.blocks:
            blocks.append(ResidualBlock(channels, width, stride, shape.kernel))
            strides = _strides(stride, shape.kernel)
            axes = [-(-size // step) for size, step in zip(axes, strides, strict=True)]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = head(channels, axes, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of inputs (N, channels, height, width)."""
        logits: torch.Tensor = self.head(self.blocks(torch.relu(self.stem(x))))
        return logits


def _strides(stride: int, kernel: tuple[int, int]) -> tuple[int, int]:
    """Stride along the axes that the kernel covers; signals have height 1."""
    return (stride if kernel[0] > 1 else 1, stride if kernel[1] > 1 else 1)


def _convolution(
    channels: int, made: int, strides: tuple[int, int], kernel: tuple[int, int]
) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    convolution = nn.Conv2d(channels, made, kernel, strides, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(made))
