"""ONNX models of trained sliced networks: the part of each device, and the whole.

Nodes of a part are called ``<part>/<node>``. Selections of channels and conversions of sent tensors
belong to the part that makes the tensor, on the first device, or to the one that reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from layoutsel.exits.training.settings import INPUT as INPUT_NAME
from layoutsel.search.networks import write_part
from layoutsel.search.offload.slicing import Channels, SlicedNetwork, SlicedPart
from layoutsel.search.offload.times import FIRST, SECOND
from layoutsel.search.offload.transmitted import BFLOAT16, FLOAT32, UINT8
from layoutsel.search.parts import INPUT
from layoutsel.search.trained import PartWeights
from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef

LOGITS = "logits"
"""Name of the second part's result."""
_TYPES = {
    FLOAT32: TensorProto.FLOAT,
    BFLOAT16: TensorProto.BFLOAT16,
    UINT8: TensorProto.UINT8,
}
"""ONNX types of sent tensors by precision."""
_LINK = "link."
"""Prefix of the names of nodes that select channels or convert; they have no weights."""


def write_parts(
    network: SlicedNetwork,
    weights: PartWeights,
    steps: Mapping[str, float],
) -> dict[str, ModelProto]:
    """Write a network as ONNX models ``first``, ``second`` and ``whole``.

    Results of the first are inputs of the second, and have the names of the sent tensors.

    Parameters
    ----------
    network
        Network.
    weights
        Weights by part, in the order in which its nodes read them.
    steps
        Step of unsigned bytes by sent tensor.
    """
    first = _Writer(network, "first", steps)
    sent = first.run_first(first.builder.input(INPUT_NAME, (1, *network.input_shape)))
    first.name_outputs(sent)
    second = _Writer(network, "second", steps)
    second.run_second(
        {
            name: second.builder.input(name, second.sent_shape(name), _TYPES[network.precision])
            for name in network.sent
        }
    )
    whole = _Writer(network, "whole", steps)
    whole.run_second(whole.run_first(whole.builder.input(INPUT_NAME, (1, *network.input_shape))))
    return {
        name: _with_weights(writer.model(), network, weights)
        for name, writer in (("first", first), ("second", second), ("whole", whole))
    }


class _Writer:
    """ONNX graph of one or both parts."""

    def __init__(self, network: SlicedNetwork, name: str, steps: Mapping[str, float]) -> None:
        self.network, self.steps = network, steps
        self.builder = NetworkBuilder(name)
        self.signatures = {part.name: part.signature for part in network.graph.parts}
        self.renamed: dict[str, str] = {}
        self.outputs: list[tuple[TensorRef, tuple[int, ...], int]] = []

    def run_first(self, x: TensorRef) -> dict[str, TensorRef]:
        """Add the first device's parts; returns what is sent."""
        held = self._run(FIRST, {INPUT: x})
        return {name: self._encoded(name, held[name]) for name in self.network.sent}

    def run_second(self, sent: Mapping[str, TensorRef]) -> None:
        """Add the second device's parts, and the network's result."""
        held = self._run(SECOND, {name: self._decoded(name, x) for name, x in sent.items()})
        last = self.network.parts[-1]
        made = held[last.name]
        self.renamed[made.name] = LOGITS
        self.outputs.append((made, (1, len(last.made)), TensorProto.FLOAT))

    def name_outputs(self, sent: Mapping[str, TensorRef]) -> None:
        """Make what is sent the results."""
        for name, value in sent.items():
            self.renamed[value.name] = name
            self.outputs.append((value, self.sent_shape(name), _TYPES[self.network.precision]))

    def sent_shape(self, name: str) -> tuple[int, ...]:
        """Shape of a sent tensor."""
        return (1, len(self.network.sent[name]), *self.network.graph.shape(name)[1:])

    def model(self) -> ModelProto:
        """Make the ONNX model, with the results' names."""
        model = self.builder.model()
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = self.renamed.get(name, name)
        for value, shape, type_ in self.outputs:
            name = self.renamed[value.name]
            model.graph.output.append(helper.make_tensor_value_info(name, type_, shape))
        return model

    def _run(self, device: int, held: dict[str, TensorRef]) -> dict[str, TensorRef]:
        for part in self.network.parts:
            if part.device == device:
                held[part.name] = self._written(part, held)
        return held

    def _written(self, part: SlicedPart, held: Mapping[str, TensorRef]) -> TensorRef:
        self.builder.scope = f"{part.name}/{_LINK}"
        read = [
            self._selected(held[name], self.network.stored(name, part.device), part.read)
            for name in part.inputs
        ]
        self.builder.scope = f"{part.name}/"
        return write_part(self.builder, read, self.signatures[part.name])

    def _selected(self, x: TensorRef, stored: Channels, wanted: Channels) -> TensorRef:
        """Choose channels; those that are not stored become zero."""
        if stored == wanted:
            return x
        places = {channel: place for place, channel in enumerate(stored)}
        index = np.array([places.get(one, len(stored)) for one in wanted], np.int64)
        if len(stored) in index:
            ends = np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64)
            x = self.builder.op("Pad", x, ends, channels=x.channels + 1)
        return self.builder.op("Gather", x, index, channels=len(index), axis=1)

    def _encoded(self, name: str, x: TensorRef) -> TensorRef:
        """Select and convert a tensor for sending."""
        network = self.network
        self.builder.scope = f"{name}/{_LINK}"
        x = self._selected(x, network.by_name[name].made, network.sent[name])
        if network.precision == UINT8:
            x = self.builder.op("Round", self.builder.op("Div", x, self.steps[name]))
            x = self.builder.op("Clip", x, 0.0, 255.0)
        if network.precision == FLOAT32:
            return x
        return self.builder.op("Cast", x, to=_TYPES[network.precision])

    def _decoded(self, name: str, x: TensorRef) -> TensorRef:
        """Convert a received tensor, at its first reader."""
        network = self.network
        if network.precision == FLOAT32:
            return x
        reader = next(
            part for part in network.parts if part.device == SECOND and name in part.inputs
        )
        self.builder.scope = f"{reader.name}/{_LINK}"
        x = self.builder.op("Cast", x, to=TensorProto.FLOAT)
        return self.builder.op("Mul", x, self.steps[name]) if network.precision == UINT8 else x


def _with_weights(model: ModelProto, network: SlicedNetwork, weights: PartWeights) -> ModelProto:
    """Replace the random weights of a model's parts by theirs."""
    held: dict[str, list[TensorProto]] = {part.name: [] for part in network.parts}
    for one in model.graph.initializer:
        part, _, name = one.name.partition("/")
        if not name.startswith(_LINK):
            held[part].append(one)
    for part, initializers in held.items():
        if initializers:
            _replace(part, initializers, weights[part])
    return model


def _replace(part: str, held: Iterable[TensorProto], arrays: Iterable[np.ndarray]) -> None:
    for one, array in zip(held, arrays, strict=True):
        assert tuple(one.dims) == array.shape, f"{part}: {one.name} {one.dims}, {array.shape}"
        one.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), one.name))
