"""Search spaces: cells of nodes, with an operation between each pair of nodes.

Node 0 of a cell is its input. Each later node is the sum of the operations on earlier ones, and the
last one is the output. Operations that read node 0 have the stride of the cell and make its
channels. A cell with one node is a layer. A convolution comes first, and a global mean with a
linear layer comes last.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from layoutsel import documents
from layoutsel.documents.saved import Fault, SavedDocument, below
from layoutsel.search.operations import NONE, OPERATIONS, SKIP, OperationShape, Shape, Stride
from tvm_passes.errors import LayoutselError

SCHEMA_VERSION = 1
"""Version of files of search spaces and architectures."""
Pair = tuple[int, int]
"""Earlier and later node of a cell."""


class IllegalArchitecture(LayoutselError):
    """An architecture that is not part of a search space."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A part of the network with an operation to choose for each pair of nodes."""

    name: str
    """Name, unique in the space."""
    channels: tuple[int, ...]
    """Numbers of channels to choose from."""
    operations: tuple[str, ...]
    """Operations to choose from, names in :data:`~layoutsel.search.operations.OPERATIONS`."""
    stride: Stride = field(default=(1, 1), metadata=documents.OPTIONAL)
    """Stride along height and width."""
    nodes: int = field(default=1, metadata=documents.OPTIONAL)
    """Number of nodes that are computed."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Pairs of nodes, in the order of operations in architectures: (0, 1), (0, 2), (1, 2)."""
        return tuple((i, j) for j in range(1, self.nodes + 1) for i in range(j))

    def geometry(self, pair: Pair, input_shape: Shape, channels: int) -> OperationShape:
        """Tensors of the operation of a pair, in a cell that reads `input_shape`."""
        entry = OperationShape(input_shape=input_shape, channels=channels, stride=self.stride)
        if pair[0] == 0:
            return entry
        return OperationShape(input_shape=entry.output_shape, channels=channels)

    def offered(self, pair: Pair, input_shape: Shape, channels: int) -> tuple[str, ...]:
        """Operations that a pair may have; empty if none makes these channels.

        ``none`` is not offered between neighbours, so that every node has an input.
        """
        geometry = self.geometry(pair, input_shape, channels)
        return tuple(
            name
            for name in self.operations
            if OPERATIONS[name].allows(geometry) and not (name == NONE and pair[1] == pair[0] + 1)
        )

    def faults(self) -> Iterator[Fault]:
        """Yield the values that make no cell; paths begin at the cell."""
        if not self.channels or min(self.channels) < 1:
            yield "$.channels", str(list(self.channels)), "one or more numbers from 1"
        if not self.operations:
            yield "$.operations", "none", f"some of {', '.join(OPERATIONS)}"
        for index, name in enumerate(self.operations):
            if name not in OPERATIONS:
                yield f"$.operations[{index}]", repr(name), f"one of {', '.join(OPERATIONS)}"
        if len(self.stride) != 2 or min(self.stride) < 1:
            yield "$.stride", str(list(self.stride)), "two numbers from 1, for height and width"
        if self.nodes < 1:
            yield "$.nodes", str(self.nodes), "1 or more"
        for name in ("channels", "operations"):
            held = getattr(self, name)
            if len(set(held)) < len(held):
                yield f"$.{name}", str(list(held)), "each one once"


@dataclass(frozen=True, kw_only=True)
class Architecture(SavedDocument):
    """One network of a space."""

    channels: tuple[int, ...]
    """Channels of each cell."""
    operations: tuple[tuple[str, ...], ...]
    """Operation of each pair of nodes, by cell; in the order of :attr:`Cell.pairs`."""


@dataclass(frozen=True, kw_only=True)
class Space(SavedDocument):
    """All networks that a search may find."""

    VERSIONS = (SCHEMA_VERSION,)
    ADVICE = "Write the search space again, see the user guide"

    schema_version: int = SCHEMA_VERSION
    """Version of the file format."""
    data: str
    """Name of the data set."""
    input_shape: Shape
    """Channels, height and width of an input."""
    classes: int
    """Number of classes."""
    stem_channels: int
    """Channels that the first convolution makes."""
    cells: tuple[Cell, ...]
    """Cells, each reads the one before it."""

    @property
    def shape_of_stem(self) -> Shape:
        """Shape of the first cell's input."""
        return (self.stem_channels, *self.input_shape[1:])

    def input_shapes(self, channels: Sequence[int]) -> tuple[Shape, ...]:
        """Shape that each cell reads, and that the last one makes, for channels of each cell."""
        shapes = [self.shape_of_stem]
        for cell, made in zip(self.cells, channels, strict=True):
            shapes.append(cell.geometry((0, 1), shapes[-1], made).output_shape)
        return tuple(shapes)

    def offered(self, index: int, read: int, made: int) -> tuple[tuple[str, ...], ...]:
        """Operations that each pair of a cell may have.

        Parameters
        ----------
        index
            Number of the cell.
        read
            Channels of the cell before it, or of the stem.
        made
            Channels of the cell.
        """
        cell, shape = self.cells[index], (read, *self._axes[index])
        return tuple(cell.offered(pair, shape, made) for pair in cell.pairs)

    @property
    def size(self) -> int:
        """Number of networks."""
        return self._completions[0].get(self.stem_channels, 0)

    def architectures(self) -> Iterator[Architecture]:
        """Yield every network of the space."""
        for chosen in self._from(0, self.stem_channels):
            yield Architecture(
                channels=tuple(made for made, _ in chosen),
                operations=tuple(operations for _, operations in chosen),
            )

    def draw(self, random: np.random.Generator) -> Architecture:
        """Draw one of all networks, each with the same probability."""
        read = self.stem_channels
        channels, operations = [], []
        for index in range(len(self.cells)):
            counts = self._counts(index, read)
            shares = np.array(list(counts.values()), dtype=object) / sum(counts.values())
            made = int(random.choice(list(counts), p=shares.astype(float)))
            offered = self.offered(index, read, made)
            operations.append(tuple(names[random.integers(len(names))] for names in offered))
            channels.append(made)
            read = made
        return Architecture(channels=tuple(channels), operations=tuple(operations))

    @cached_property
    def _axes(self) -> tuple[Shape, ...]:
        """Height and width that each cell reads."""
        shapes = self.input_shapes([cell.channels[0] for cell in self.cells])
        return tuple(shape[1:] for shape in shapes)

    @cached_property
    def _completions(self) -> tuple[Mapping[int, int], ...]:
        """Number of ways to choose the cells from each one on, by the channels that it reads."""
        ends = {made: 1 for made in self.cells[-1].channels}
        found: list[Mapping[int, int]] = [ends]
        for index in reversed(range(len(self.cells))):
            before = self.cells[index - 1].channels if index else (self.stem_channels,)
            found.insert(
                0, {read: sum(self._counts(index, read, found[0]).values()) for read in before}
            )
        return tuple(found)

    def _counts(
        self, index: int, read: int, after: Mapping[int, int] | None = None
    ) -> dict[int, int]:
        """Number of ways to choose the cells from `index` on, by the channels of that cell."""
        after = self._completions[index + 1] if after is None else after
        return {
            made: math.prod(map(len, self.offered(index, read, made))) * after[made]
            for made in self.cells[index].channels
        }

    def _from(self, index: int, read: int) -> Iterator[tuple[tuple[int, tuple[str, ...]], ...]]:
        """Yield the channels and operations of the cells from `index` on."""
        if index == len(self.cells):
            yield ()
            return
        for made, count in self._counts(index, read).items():
            if count:
                for operations in itertools.product(*self.offered(index, read, made)):
                    for later in self._from(index + 1, made):
                        yield ((made, operations), *later)

    def check_architecture(self, architecture: Architecture) -> None:
        """Reject an architecture of another space.

        Raises
        ------
        IllegalArchitecture
            At the first cell that does not fit.
        """
        for held, what in (
            (architecture.channels, "channels of"),
            (architecture.operations, "operations of"),
        ):
            if len(held) != len(self.cells):
                raise IllegalArchitecture(
                    f"architecture with {what} {len(held)} cells: the space has {len(self.cells)}"
                )
        for cell, made in zip(self.cells, architecture.channels, strict=True):
            if made not in cell.channels:
                raise IllegalArchitecture(
                    f"cell {cell.name!r} with {made} channels: expected one of "
                    f"{', '.join(map(str, cell.channels))}"
                )
        reads = (self.stem_channels, *architecture.channels)
        for index, (cell, chosen) in enumerate(
            zip(self.cells, architecture.operations, strict=True)
        ):
            pairs = self.offered(index, reads[index], architecture.channels[index])
            if len(chosen) != len(pairs):
                raise IllegalArchitecture(
                    f"cell {cell.name!r} with {len(chosen)} operations: expected {len(pairs)}, "
                    f"one for each pair of its {cell.nodes + 1} nodes"
                )
            for (i, j), names, name in zip(cell.pairs, pairs, chosen, strict=True):
                if name not in names:
                    raise IllegalArchitecture(
                        f"cell {cell.name!r}: operation {name!r} from node {i} to node {j}; "
                        f"expected one of {', '.join(names) or 'none that fits these channels'}"
                    )

    def faults(self) -> Iterator[Fault]:
        """Yield the inconsistencies; later ones may follow from the first."""
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            yield "$.input_shape", str(list(self.input_shape)), "channels, height, width, from 1"
            return
        for name, least in (("classes", 2), ("stem_channels", 1)):
            if getattr(self, name) < least:
                yield f"$.{name}", str(getattr(self, name)), f"{least} or more"
        if not self.cells:
            yield "$.cells", "none", "one or more"
            return
        names = [cell.name for cell in self.cells]
        for index, cell in enumerate(self.cells):
            if not cell.name or "." in cell.name or names.index(cell.name) < index:
                yield f"$.cells[{index}].name", repr(cell.name), "a name of its own, without dots"
            yield from below(f"$.cells[{index}]", cell.faults())
        if not self.size:
            yield (
                "$.cells",
                "cells without any network",
                f"operations that make the channels and strides; {SKIP} and poolings keep channels",
            )
