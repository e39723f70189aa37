"""Sliced networks as PyTorch modules, with inherited weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from layoutsel.search.joint.modules import module_of
from layoutsel.search.offload.inheriting import inherit
from layoutsel.search.offload.slicing import Channels, SlicedNetwork, SlicedPart
from layoutsel.search.offload.supernet import Supernet, rounded
from layoutsel.search.offload.times import FIRST, SECOND
from layoutsel.search.parts import INPUT, SUM
from layoutsel.search.trained import PartWeights

Tensors = Mapping[str, Tensor]
"""Tensors by name."""


class Selection(nn.Module):
    """Choose channels of a tensor; those that it lacks become zero."""

    def __init__(self, stored: Channels, wanted: Channels) -> None:
        super().__init__()
        self.is_all = stored == wanted
        self.lacks = not set(wanted) <= set(stored)
        places = {channel: place for place, channel in enumerate(stored)}
        index = [places.get(channel, len(stored)) for channel in wanted]
        self.register_buffer("index", torch.tensor(index), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the selection to a tensor (N, channels, height, width)."""
        if self.is_all:
            return x
        if self.lacks:
            x = nn.functional.pad(x, (0, 0, 0, 0, 0, 1))
        return x.index_select(1, self.index)


class SlicedModule(nn.Module):
    """Both parts of a sliced network.

    Parameters
    ----------
    network
        Network.
    """

    def __init__(self, network: SlicedNetwork) -> None:
        super().__init__()
        self.network = network
        self.layers = nn.ModuleDict()
        self.reads = nn.ModuleDict()
        for part, priced in zip(network.parts, network.graph.parts, strict=True):
            if part.operation != SUM:
                self.layers[_key(part.name)] = module_of(priced.signature)
            for tensor in part.inputs:
                stored = network.stored(tensor, part.device)
                self.reads[_key(part.name, tensor)] = Selection(stored, part.read)
        for tensor, channels in network.sent.items():
            stored = network.by_name[tensor].made
            self.reads[_key("sent", tensor)] = Selection(stored, channels)
            self.register_buffer(f"largest_{_key(tensor)}", torch.zeros(()))

    def inherit(self, supernet: Supernet) -> None:
        """Copy the supernet's weights for the channels of the parts."""
        for part in self.network.parts:
            if part.operation != SUM:
                full = supernet.layer(part.name, part.operation)
                inherit(self.layers[_key(part.name)], full, part.read, part.made)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of inputs."""
        return self.second(self.received(self.first(x)))

    def first(self, x: Tensor) -> Tensors:
        """Tensors that the first device sends, before their conversion."""
        held = self._run(FIRST, {INPUT: x})
        return {
            tensor: self.reads[_key("sent", tensor)](held[tensor]) for tensor in self.network.sent
        }

    def received(self, sent: Tensors) -> Tensors:
        """Sent tensors after both conversions; gradients pass as if nothing was rounded."""
        found = {}
        for tensor, x in sent.items():
            if self.training:
                # Bytes cover all values of the training.
                largest = self.largest(tensor)
                largest.copy_(torch.maximum(largest, x.detach().amax()))
            arrived = rounded(x, self.network.precision, self.step(tensor))
            found[tensor] = x + (arrived - x).detach()
        return found

    def second(self, received: Tensors) -> Tensor:
        """Logits (N, classes) of received tensors."""
        return self._run(SECOND, dict(received))[self.network.parts[-1].name]

    def folded(self) -> PartWeights:
        """Weights by part as its ONNX nodes read them; normalisation is folded."""
        return {
            part.name: tuple(self.layers[_key(part.name)].arrays(len(part.read), len(part.made)))
            for part in self.network.parts
            if part.operation != SUM
        }

    def steps(self) -> dict[str, float]:
        """Step of unsigned bytes by sent tensor."""
        return {tensor: float(self.step(tensor)) for tensor in self.network.sent}

    def largest(self, tensor: str) -> Tensor:
        """Greatest value of a sent tensor in training, a buffer of the module."""
        return self.get_buffer(f"largest_{_key(tensor)}")

    def step(self, tensor: str) -> Tensor:
        """Step of unsigned bytes for a sent tensor, scalar."""
        return self.largest(tensor).clamp_min(1e-6) / 255

    def _run(self, device: int, held: dict[str, Tensor]) -> dict[str, Tensor]:
        for part in self.network.parts:
            if part.device == device:
                held[part.name] = self._result(part, held)
        return held

    def _result(self, part: SlicedPart, held: Tensors) -> Tensor:
        inputs = [self.reads[_key(part.name, name)](held[name]) for name in part.inputs]
        if part.operation != SUM:
            made: Tensor = self.layers[_key(part.name)](inputs[0], len(part.made))
            return made
        total = inputs[0]
        for one in inputs[1:]:
            total = total + one
        return total


def _key(*names: str) -> str:
    """Name of a submodule, which has no dots."""
    return "__".join(name.replace(".", "_") for name in names)
