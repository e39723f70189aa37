"""Parts of a network: the units that a search prices and places."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from layoutsel.search.operations import NONE, OPERATIONS, SKIP, STEM, OperationShape, Shape
from layoutsel.search.space import Architecture, Cell, Space

INPUT = "input"
"""Name of the network's input among the tensors."""
SUM, HEAD = "sum", "head"
"""Operations of parts that are not chosen."""
_ELEMENT_BYTES = 4
"""Bytes of an element of a tensor."""


@dataclass(frozen=True, kw_only=True, order=True)
class PartSignature:
    """All that the price of a part depends on."""

    operation: str
    """Name in :data:`~layoutsel.search.operations.OPERATIONS`, :data:`SUM` or :data:`HEAD`."""
    input_shape: Shape
    """Shape of each input."""
    channels: int
    """Channels of the output; classes for :data:`HEAD`."""
    stride: tuple[int, ...] = (1, 1)
    """Stride along height and width."""
    inputs: int = 1
    """Number of inputs."""

    @property
    def geometry(self) -> OperationShape:
        """Tensors that the part reads and makes."""
        return OperationShape(
            input_shape=self.input_shape, channels=self.channels, stride=self.stride
        )

    @property
    def output_shape(self) -> Shape:
        """Shape of the output."""
        return (self.channels, 1, 1) if self.operation == HEAD else self.geometry.output_shape

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights."""
        if self.operation == HEAD:
            return _ELEMENT_BYTES * self.channels * (self.input_shape[0] + 1)
        if self.operation == SUM:
            return 0
        return _ELEMENT_BYTES * OPERATIONS[self.operation].weights(self.geometry)

    def __str__(self) -> str:
        """Key in price tables, such as ``conv3 16x1x40 -> 24 /1x2``."""
        count = f"{self.inputs}*" if self.inputs > 1 else ""
        shape, stride = ("x".join(map(str, one)) for one in (self.input_shape, self.stride))
        return f"{self.operation} {count}{shape} -> {self.channels} /{stride}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One operation of a network. It makes one tensor, which has its name."""

    name: str
    """Name, unique in the network."""
    signature: PartSignature
    """Operation and shapes."""
    inputs: tuple[str, ...]
    """Tensors that it reads: parts that make them, or :data:`INPUT`."""

    @property
    def bytes(self) -> int:
        """Bytes of its tensor."""
        return tensor_bytes(self.signature.output_shape)


@dataclass(frozen=True, kw_only=True)
class PartGraph:
    """A network as parts, in a valid order of execution."""

    input_shape: Shape
    """Shape of the network's input."""
    parts: tuple[Part, ...]
    """Parts; the last one makes the network's output."""

    @cached_property
    def by_name(self) -> Mapping[str, Part]:
        """Parts by name."""
        return {part.name: part for part in self.parts}

    def shape(self, tensor: str) -> Shape:
        """Shape of a tensor."""
        if tensor == INPUT:
            return self.input_shape
        return self.by_name[tensor].signature.output_shape


def tensor_bytes(shape: Shape) -> int:
    """Bytes of a tensor of one sample."""
    return _ELEMENT_BYTES * math.prod(shape)


def parts_of(space: Space, architecture: Architecture) -> PartGraph:
    """Divide a network into parts.

    ``skip`` and ``none`` are no parts, and neither is the sum of a single tensor.

    Raises
    ------
    IllegalArchitecture
        If the architecture is not part of the space.
    """
    space.check_architecture(architecture)
    stem = Part(name="stem", signature=stem_signature(space), inputs=(INPUT,))
    parts, tensor = [stem], stem.name
    shapes = space.input_shapes(architecture.channels)
    for cell, shape, channels, operations in zip(
        space.cells, shapes, architecture.channels, architecture.operations, strict=False
    ):
        made, tensor = _cell_parts(cell, tensor, shape, channels, operations)
        parts += made
    head = Part(name=HEAD, signature=head_signature(space, shapes[-1]), inputs=(tensor,))
    return PartGraph(input_shape=space.input_shape, parts=(*parts, head))


def stem_signature(space: Space) -> PartSignature:
    """PartSignature of a space's first convolution."""
    return PartSignature(
        operation=STEM, input_shape=space.input_shape, channels=space.stem_channels
    )


def head_signature(space: Space, shape: Shape) -> PartSignature:
    """PartSignature of the mean and the linear layer after cells that make `shape`."""
    return PartSignature(operation=HEAD, input_shape=shape, channels=space.classes)


def operation_signature(operation: str, geometry: OperationShape) -> PartSignature | None:
    """PartSignature of an operation; None if nothing is computed."""
    if OPERATIONS[operation].write is None:
        return None
    return PartSignature(
        operation=operation,
        input_shape=geometry.input_shape,
        channels=geometry.channels,
        stride=geometry.stride,
    )


def sum_signature(shape: Shape, inputs: int) -> PartSignature | None:
    """PartSignature of the sum of tensors; None for a single one."""
    if inputs == 1:
        return None
    return PartSignature(operation=SUM, input_shape=shape, channels=shape[0], inputs=inputs)


def signatures_of(space: Space) -> tuple[PartSignature, ...]:
    """Signatures of all parts that networks of a space have, each once."""
    found = {stem_signature(space)}
    reads: tuple[int, ...] = (space.stem_channels,)
    axes = space.input_shapes([cell.channels[0] for cell in space.cells])
    for cell, shape in zip(space.cells, axes, strict=False):
        for read, made in itertools.product(reads, cell.channels):
            found |= set(_cell_signatures(cell, (read, *shape[1:]), made))
        reads = cell.channels
    found |= {head_signature(space, (read, *axes[-1][1:])) for read in reads}
    return tuple(sorted(found))


def _cell_signatures(cell: Cell, shape: Shape, channels: int) -> Iterator[PartSignature]:
    """Yield the signatures of a cell that reads `shape` and makes so many channels."""
    for pair in cell.pairs:
        geometry = cell.geometry(pair, shape, channels)
        for operation in cell.offered(pair, shape, channels):
            signature = operation_signature(operation, geometry)
            if signature is not None:
                yield signature
    made = cell.geometry((0, 1), shape, channels).output_shape
    for count in range(2, cell.nodes + 1):
        total = sum_signature(made, count)
        assert total is not None
        yield total


def _cell_parts(
    cell: Cell, tensor: str, shape: Shape, channels: int, operations: tuple[str, ...]
) -> tuple[list[Part], str]:
    """List the parts of a cell that reads `tensor`, and name the tensor that it makes."""
    chosen = dict(zip(cell.pairs, operations, strict=True))
    nodes, parts = [tensor], []
    for j in range(1, cell.nodes + 1):
        read = []
        for i in range(j):
            geometry = cell.geometry((i, j), shape, channels)
            signature = operation_signature(chosen[i, j], geometry)
            if chosen[i, j] == SKIP:
                read.append(nodes[i])
            elif chosen[i, j] != NONE and signature is not None:
                name = f"{cell.name}.{i}-{j}"
                parts.append(Part(name=name, signature=signature, inputs=(nodes[i],)))
                read.append(name)
        made = cell.geometry((0, 1), shape, channels).output_shape
        total = sum_signature(made, len(read))
        if total is None:
            nodes.append(read[0])
        else:
            parts.append(Part(name=f"{cell.name}.{j}", signature=total, inputs=tuple(read)))
            nodes.append(parts[-1].name)
    return parts, nodes[-1]
