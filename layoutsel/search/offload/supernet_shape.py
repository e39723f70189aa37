"""A search space with fixed widths, as a supernet holds it: all operations of each pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from layoutsel.search.operations import NONE, SKIP, OperationShape, Shape
from layoutsel.search.space import Cell, Pair, Space
from tvm_passes.errors import LayoutselError


@dataclass(frozen=True, kw_only=True)
class SuperCell:
    """A cell with the shapes of its tensors."""

    cell: Cell
    """Cell of the space."""
    input_shape: Shape
    """Shape of node 0."""
    channels: int
    """Channels of the later nodes."""

    @property
    def name(self) -> str:
        """Name of the cell."""
        return self.cell.name

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Pairs of nodes."""
        return self.cell.pairs

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations, in the order of the selectors' entries."""
        return self.cell.operations

    @property
    def shape(self) -> Shape:
        """Shape of the later nodes."""
        return self.geometry((0, 1)).output_shape

    def geometry(self, pair: Pair) -> OperationShape:
        """Tensors of the operations of a pair."""
        return self.cell.geometry(pair, self.input_shape, self.channels)

    @cached_property
    def offered(self) -> tuple[tuple[bool, ...], ...]:
        """For each pair and operation, True if the pair may have it."""
        return tuple(
            tuple(name in names for name in self.operations) for names in self.names_offered
        )

    @cached_property
    def names_offered(self) -> tuple[tuple[str, ...], ...]:
        """Operations that each pair may have."""
        return tuple(
            self.cell.offered(pair, self.input_shape, self.channels) for pair in self.pairs
        )

    @cached_property
    def is_none(self) -> tuple[bool, ...]:
        """For each operation, True if it is ``none``."""
        return tuple(name == NONE for name in self.operations)

    @cached_property
    def is_skip(self) -> tuple[bool, ...]:
        """For each operation, True if it is ``skip``."""
        return tuple(name == SKIP for name in self.operations)

    def node(self, number: int) -> str:
        """Name of a computed node's tensor, which is also that of the sum that makes it."""
        return f"{self.name}.{number}"

    def output(self, pair: Pair) -> str:
        """Name of the tensor that the operation of a pair makes, and of its part."""
        return f"{self.name}.{pair[0]}-{pair[1]}"


@dataclass(frozen=True, kw_only=True)
class SupernetShape:
    """Shapes of all tensors of a supernet."""

    space: Space
    """Search space with one width of each cell."""
    cells: tuple[SuperCell, ...]
    """Cells in order."""

    @classmethod
    def of(cls, space: Space) -> SupernetShape:
        """Shapes at the greatest width of each cell.

        Raises
        ------
        LayoutselError
            If the space has no network of these widths.
        """
        widths = tuple(max(cell.channels) for cell in space.cells)
        narrowed = tuple(
            replace(cell, channels=(width,))
            for cell, width in zip(space.cells, widths, strict=True)
        )
        if not replace(space, cells=narrowed).size:
            raise LayoutselError(
                f"a search space without a network of {', '.join(map(str, widths))} channels: "
                "expected operations that make the greatest number of channels of each cell"
            )
        shapes = space.input_shapes(widths)
        cells = zip(narrowed, shapes, widths, strict=False)
        return cls(
            space=replace(space, cells=narrowed),
            cells=tuple(SuperCell(cell=c, input_shape=s, channels=w) for c, s, w in cells),
        )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each cell."""
        return tuple(cell.channels for cell in self.cells)

    def sendable(self) -> Iterator[tuple[str, Shape]]:
        """Yield the name and shape of each tensor that may be sent to the second device.

        The tensor of a node is sent to operations, that of an operation to the sum after it.
        """
        yield "stem", self.space.shape_of_stem
        for cell in self.cells:
            for pair in cell.pairs:
                yield cell.output(pair), cell.shape
            for number in range(1, cell.cell.nodes + 1):
                yield cell.node(number), cell.shape
