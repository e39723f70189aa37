"""Channels with the largest weights, which pruning by magnitude keeps; for comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from layoutsel.search.joint.modules import NormalisedConvolution, Separable
from layoutsel.search.offload.slicing import OffloadChoice
from layoutsel.search.offload.supernet import Supernet
from layoutsel.search.parts import SUM, PartGraph


def largest_channels(supernet: Supernet, graph: PartGraph, choice: OffloadChoice) -> OffloadChoice:
    """Replace the sent channels by as many with the largest magnitudes.

    Parameters
    ----------
    supernet
        Supernet whose weights count.
    graph
        Parts of the choice's network.
    choice
        Choice with the numbers of channels.
    """
    found: dict[str, Tensor] = {}
    for part in graph.parts:
        layer = (
            None
            if part.signature.operation == SUM
            else supernet.layer(part.name, part.signature.operation)
        )
        if type(layer) in _MAGNITUDES:
            found[part.name] = _MAGNITUDES[type(layer)](layer)
        elif all(tensor in found for tensor in part.inputs):
            found[part.name] = torch.stack([found[tensor] for tensor in part.inputs]).sum(0)
    kept = {
        tensor: tuple(sorted(found[tensor].argsort(descending=True)[: len(ones)].tolist()))
        for tensor, ones in choice.kept.items()
    }
    return replace(choice, kept=kept)


def _of_convolution(layer: NormalisedConvolution) -> Tensor:
    """Sum of the absolute weights of each filter, with the normalisation folded into it."""
    made = layer.weight.shape[0]
    weight, _ = layer.arrays(layer.weight.shape[1], made)
    return torch.from_numpy(weight).abs().sum((1, 2, 3))


_MAGNITUDES: Mapping[type[nn.Module], Callable[[Any], Tensor]] = {
    NormalisedConvolution: _of_convolution,
    Separable: lambda layer: _of_convolution(layer.pointwise),
}
"""Magnitude of each channel by kind of operation; poolings and sums have those of their inputs."""
