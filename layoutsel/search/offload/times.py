"""Prices of a supernet's parts on two devices as arrays, and of the messages between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from layoutsel.cluster.links import LinearTime
from layoutsel.search.offload.supernet_shape import SuperCell, SupernetShape
from layoutsel.search.parts import (
    PartSignature,
    head_signature,
    operation_signature,
    stem_signature,
    sum_signature,
    tensor_bytes,
)

Price = Callable[[PartSignature, int], float]
"""Time of a part on the first (0) or the second (1) device, microseconds."""
FIRST, SECOND = 0, 1
"""Devices: the first one has the input and takes the answer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CellTimes:
    """Times of the parts of a cell."""

    operations_us: np.ndarray
    """Time of each operation of each pair on each device, (pairs, operations, devices); 0 where it
    is not offered or nothing is computed."""
    sums_us: np.ndarray
    """Time of a sum by number of its inputs, (nodes + 1, devices); 0 for less than two."""


@dataclass(frozen=True, kw_only=True)
class LinkTimes:
    """Times of messages over one link."""

    name: str
    """Name of the link, see :mod:`layoutsel.search.link_choice`."""
    message: LinearTime
    """Time of a message from the first device to the second, over its size."""
    answer: LinearTime
    """Time of the message back over its size, with the engine's own time of a request."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OffloadTimes:
    """All times that the placement of a network on two devices depends on."""

    cells: tuple[CellTimes, ...]
    """Times of the cells' parts."""
    stem_us: float
    """Time of the stem on the first device, microseconds."""
    head_us: float
    """Time of the head on the second device, microseconds."""
    links: tuple[LinkTimes, ...]
    """Times of messages, by link to choose."""
    answer_bytes: int
    """Size of the answer."""

    def fixed_us(self, link: int = 0) -> float:
        """Time that no other selector changes if a link is chosen, microseconds."""
        return self.stem_us + self.head_us + self.links[link].answer.at(self.answer_bytes)

    def table(self) -> np.ndarray:
        """Fixed time, time of a message and time of its byte, microseconds, by link: (3, links)."""
        lines = [one.message for one in self.links]
        return np.array(
            [
                [self.fixed_us(link) for link in range(len(lines))],
                [line.us for line in lines],
                [line.us_per_byte for line in lines],
            ]
        )


def times_of(shape: SupernetShape, price: Price, links: tuple[LinkTimes, ...]) -> OffloadTimes:
    """Arrange the prices of a supernet.

    Parameters
    ----------
    shape
        Shape of the supernet.
    price
        Times of the parts.
    links
        Times of messages over each link to choose.
    """
    space = shape.space
    head = head_signature(space, shape.cells[-1].shape)
    return OffloadTimes(
        cells=tuple(_cell_times(cell, price) for cell in shape.cells),
        stem_us=price(stem_signature(space), FIRST),
        head_us=price(head, SECOND),
        links=links,
        answer_bytes=tensor_bytes(head.output_shape),
    )


def _cell_times(cell: SuperCell, price: Price) -> CellTimes:
    operations = np.zeros((len(cell.pairs), len(cell.operations), 2))
    for p, pair in enumerate(cell.pairs):
        for o, name in enumerate(cell.operations):
            signature = operation_signature(name, cell.geometry(pair))
            if cell.offered[p][o] and signature is not None:
                operations[p, o] = [price(signature, device) for device in (FIRST, SECOND)]
    sums = np.zeros((cell.cell.nodes + 1, 2))
    for count in range(2, cell.cell.nodes + 1):
        signature = sum_signature(cell.shape, count)
        assert signature is not None
        sums[count] = [price(signature, device) for device in (FIRST, SECOND)]
    return CellTimes(operations_us=operations, sums_us=sums)
