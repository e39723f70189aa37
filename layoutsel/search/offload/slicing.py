"""Physical slices of a network for two devices: every part with the channels that it needs.

A channel that is not sent counts as zero on the second device. A part makes the channels that are
not zero and that a reader uses; convolutions read all channels that exist, and have weights for
them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from layoutsel import documents
from layoutsel.documents.saved import SavedDocument
from layoutsel.search.link_choice import ANY
from layoutsel.search.offload.times import FIRST, SECOND
from layoutsel.search.offload.transmitted import FLOAT32
from layoutsel.search.operations import OPERATIONS
from layoutsel.search.parts import HEAD, INPUT, SUM, Part, PartGraph, PartSignature
from layoutsel.search.space import Architecture

Channels = tuple[int, ...]
"""Indices of channels of a full tensor, ascending."""


@dataclass(frozen=True, kw_only=True)
class OffloadChoice(SavedDocument):
    """A network of a space, its placement on two devices, and the channels that are sent."""

    architecture: Architecture
    """Network with all channels."""
    devices: Mapping[str, int]
    """Device of each part, 0 for the first one and 1 for the second one."""
    kept: Mapping[str, Channels]
    """Channels that are sent, by tensor from the first to the second device."""
    precision: str = field(default=FLOAT32, metadata=documents.OPTIONAL)
    """Precision of sent tensors."""
    link: str = field(default=ANY, metadata=documents.OPTIONAL)
    """Link that they are sent over, see :mod:`layoutsel.search.link_choice`."""


@dataclass(frozen=True, kw_only=True)
class SlicedPart:
    """A part with some of its channels."""

    name: str
    """Name of the part, and of its tensor."""
    operation: str
    """Operation of the part."""
    stride: tuple[int, ...]
    """Stride of the operation."""
    device: int
    """Device that runs it."""
    inputs: tuple[str, ...]
    """Tensors that it reads."""
    read: Channels
    """Channels that it reads of every input; those that are absent there are zero."""
    made: Channels
    """Channels that it makes."""


@dataclass(frozen=True, kw_only=True)
class SlicedNetwork:
    """A network on two devices whose parts have the channels that they need."""

    input_shape: tuple[int, ...]
    """Shape of the network's input."""
    parts: tuple[SlicedPart, ...]
    """Parts in a valid order of execution; those of the first device come first."""
    sent: Mapping[str, Channels]
    """Channels that are sent, by tensor."""
    precision: str
    """Precision of sent tensors."""
    link: str
    """Link that they are sent over."""

    @cached_property
    def by_name(self) -> Mapping[str, SlicedPart]:
        """Parts by name."""
        return {part.name: part for part in self.parts}

    @cached_property
    def graph(self) -> PartGraph:
        """The parts with the shapes of their slices, to price them."""
        shapes = {INPUT: self.input_shape}
        parts = []
        for part in self.parts:
            signature = PartSignature(
                operation=part.operation,
                input_shape=(len(part.read), *shapes[part.inputs[0]][1:]),
                channels=len(part.made),
                stride=part.stride,
                inputs=len(part.inputs),
            )
            shapes[part.name] = signature.output_shape
            parts.append(Part(name=part.name, signature=signature, inputs=part.inputs))
        return PartGraph(input_shape=self.input_shape, parts=tuple(parts))

    def stored(self, tensor: str, device: int) -> Channels:
        """Channels of a tensor that a device has."""
        if tensor == INPUT:
            return tuple(range(self.input_shape[0]))
        part = self.by_name[tensor]
        return part.made if part.device == device else self.sent[tensor]


def slice_network(graph: PartGraph, choice: OffloadChoice) -> SlicedNetwork:
    """Choose the channels of every part.

    Parameters
    ----------
    graph
        Full parts of the choice's network.
    choice
        Placement and sent channels. Tensors that are sent without an entry are sent whole.
    """
    slicer = _Slicer(graph, choice)
    order = sorted(graph.parts, key=lambda part: choice.devices[part.name])
    return SlicedNetwork(
        input_shape=graph.input_shape,
        parts=tuple(slicer.part(part) for part in order),
        sent={tensor: tuple(sorted(slicer.sent(tensor))) for tensor in slicer.crossing},
        precision=choice.precision,
        link=choice.link,
    )


class _Slicer:
    """Sets of channels, forwards those that are not zero and backwards those that are used."""

    def __init__(self, graph: PartGraph, choice: OffloadChoice) -> None:
        self.graph, self.choice, self.devices = graph, choice, choice.devices
        self.readers: dict[str, list[Part]] = {INPUT: []}
        for part in graph.parts:
            self.readers[part.name] = []
            for tensor in part.inputs:
                self.readers[tensor].append(part)
        self.crossing = [
            part.name
            for part in graph.parts
            if self.devices[part.name] == FIRST
            and any(self.devices[reader.name] == SECOND for reader in self.readers[part.name])
        ]
        self.present: dict[str, set[int]] = {INPUT: set(range(graph.input_shape[0]))}
        for part in graph.parts:
            self.present[part.name] = self._present(part)
        self.used: dict[str, set[int]] = {}
        for part in reversed(graph.parts):
            reads = [self._uses(reader, part.name) for reader in self.readers[part.name]]
            everything = set(range(part.signature.channels))
            self.used[part.name] = set().union(*reads) if reads else everything

    def part(self, part: Part) -> SlicedPart:
        """Slice a part."""
        made = self._made(part.name)
        read = self._seen(part, part.inputs[0]) if _mixes(part) else made
        return SlicedPart(
            name=part.name,
            operation=part.signature.operation,
            stride=part.signature.stride,
            device=self.devices[part.name],
            inputs=part.inputs,
            read=tuple(sorted(read)),
            made=tuple(sorted(made)),
        )

    def sent(self, tensor: str) -> set[int]:
        """Channels of a tensor that the second device uses."""
        reads = (
            self._uses(reader, tensor)
            for reader in self.readers[tensor]
            if self.devices[reader.name] == SECOND
        )
        return set().union(*reads)

    def _made(self, tensor: str) -> set[int]:
        return self.present[tensor] & self.used[tensor]

    def _kept(self, tensor: str) -> set[int]:
        kept = self.choice.kept.get(tensor)
        return self.present[tensor] if kept is None else self.present[tensor] & set(kept)

    def _seen(self, reader: Part, tensor: str) -> set[int]:
        """Channels that are not zero where a part reads a tensor."""
        is_sent = tensor in self.crossing and self.devices[reader.name] == SECOND
        return self._kept(tensor) if is_sent else self.present[tensor]

    def _present(self, part: Part) -> set[int]:
        if _mixes(part):
            return set(range(part.signature.channels))
        return set().union(*(self._seen(part, tensor) for tensor in part.inputs))

    def _uses(self, reader: Part, tensor: str) -> set[int]:
        seen = self._seen(reader, tensor)
        return seen if _mixes(reader) else seen & self.used[reader.name]


def _mixes(part: Part) -> bool:
    """True if every channel of the result depends on all channels of the input."""
    operation = part.signature.operation
    return operation == HEAD or (operation != SUM and OPERATIONS[operation].changes_channels)
