"""Weights of single channels of a supernet's operations, for the slices of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from layoutsel.search.joint.modules import MeanHead, NormalisedConvolution, Pooling, Separable

Channels = Sequence[int]
"""Indices of channels."""


def inherit(slice_: nn.Module, full: nn.Module, read: Channels, made: Channels) -> None:
    """Copy the weights for some channels of the input and of the output of a full operation.

    Parameters
    ----------
    slice_
        Operation with as many channels; it is changed.
    full
        Operation of the same kind.
    read, made
        Channels of the input and of the output.
    """
    _INHERITS[type(full)](slice_, full, list(read), list(made))


def _convolution(
    slice_: NormalisedConvolution, full: NormalisedConvolution, read: list[int], made: list[int]
) -> None:
    if full.is_depthwise:
        made = read
        weight = full.weight.detach()[made]
    else:
        weight = full.weight.detach()[made][:, read]
    slice_.weight.data.copy_(weight)
    theirs = full.norm.state_dict()
    for name, value in slice_.norm.state_dict().items():
        value.copy_(theirs[name] if value.ndim == 0 else theirs[name][made])


def _separable(slice_: Separable, full: Separable, read: list[int], made: list[int]) -> None:
    _convolution(slice_.depthwise, full.depthwise, read, read)
    _convolution(slice_.pointwise, full.pointwise, read, made)


def _pooling(_slice: Pooling, _full: Pooling, _read: list[int], _made: list[int]) -> None:
    """Do nothing: there are no weights."""


def _head(slice_: MeanHead, full: MeanHead, read: list[int], _made: list[int]) -> None:
    slice_.linear.weight.data.copy_(full.linear.weight.detach()[:, read])
    slice_.linear.bias.data.copy_(full.linear.bias.detach())


_INHERITS: Mapping[type[nn.Module], Callable[[Any, Any, list[int], list[int]], None]] = {
    NormalisedConvolution: _convolution,
    Separable: _separable,
    Pooling: _pooling,
    MeanHead: _head,
}
"""Inheritance by kind of operation."""
