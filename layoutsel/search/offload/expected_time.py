"""Expected time and sent bytes of a supernet whose selectors have these probabilities.

All choices count as independent. At probabilities of 0 and 1, the time is exactly the planner's
cost of the placement. A tensor is sent once, however many operations read it; a skip that is a
node's only input makes no tensor of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layoutsel.search.offload.selectors import Choices
from layoutsel.search.offload.supernet_shape import SuperCell, SupernetShape
from layoutsel.search.offload.times import FIRST, SECOND, OffloadTimes
from layoutsel.search.offload.transmitted import PRECISIONS


@dataclass(frozen=True)
class CellFlow:
    """Shares of a cell's tensors that are on the first device."""

    nodes: list[Tensor]
    """Share of each node, scalars."""
    operations: Tensor
    """Share of each operation's result, (pairs, operations)."""


@dataclass(frozen=True)
class ExpectedCost:
    """Expected cost of the selectors' placements."""

    us: Tensor
    """Time of a request, microseconds."""
    bytes: Tensor
    """Bytes sent to the second device."""


def flow_of(cell: SuperCell, operations: Tensor, resources: Tensor, arriving: Tensor) -> CellFlow:
    """Follow the first device's share through a cell; nothing returns to the first device.

    Parameters
    ----------
    cell
        Cell.
    operations, resources
        Values of its selectors, see :class:`Choices`.
    arriving
        Share of node 0 on the first device, scalar.
    """
    is_none = torch.tensor(cell.is_none)
    nodes, rows = [arriving], {}
    for j in range(1, cell.cell.nodes + 1):
        share = torch.ones_like(arriving)
        for i in range(j):
            p = cell.pairs.index((i, j))
            rows[p] = nodes[i] * _stays(cell, resources[p])
            share = share * (operations[p] * torch.where(is_none, 1.0, rows[p])).sum()
        nodes.append(share)
    return CellFlow(nodes, torch.stack([rows[p] for p in range(len(cell.pairs))]))


def _stays(cell: SuperCell, resources: Tensor) -> Tensor:
    """Share of the first device given the input's; a skip is where its input is."""
    return torch.where(torch.tensor(cell.is_skip), 1.0, resources)


def expected(shape: SupernetShape, times: OffloadTimes, choices: Choices) -> ExpectedCost:
    """Compute the expected time and bytes of selectors, over all transmission cells.

    Parameters
    ----------
    shape
        Shape of the supernet.
    times
        Prices.
    choices
        Probabilities of the selectors; gates are probabilities of open ones.
    """
    each = [
        _expected_at(shape, times, choices.placed(position))
        for position in torch.eye(len(shape.cells), dtype=choices.position.dtype)
    ]
    return ExpectedCost(
        torch.dot(choices.position, torch.stack([one.us for one in each])),
        torch.dot(choices.position, torch.stack([one.bytes for one in each])),
    )


def _expected_at(shape: SupernetShape, times: OffloadTimes, choices: Choices) -> ExpectedCost:
    """Expected time and bytes of selectors with one transmission cell."""
    size = (choices.precision * torch.tensor(list(PRECISIONS.values()))).sum()
    # Links are independent of all else, so that the mean line of their messages is exact.
    links = torch.from_numpy(times.table()).to(choices.link.dtype)
    us, message_us, us_per_byte = (links * choices.link).sum(-1)
    flows, arriving = [], torch.ones_like(size)
    for cell, own, p, r in zip(
        shape.cells, times.cells, choices.operations, choices.resources, strict=True
    ):
        flows.append(flow_of(cell, p, r, arriving))
        arriving = flows[-1].nodes[-1]
        us = us + _operations_us(own.operations_us, p, flows[-1])
        us = us + _sums_us(cell, own.sums_us, p, flows[-1])
    sent = torch.zeros_like(size)
    shapes = dict(shape.sendable())
    for tensor, share in sent_shares(shape, flows, choices).items():
        _, *axes = shapes[tensor]
        kept = choices.channels[tensor].sum()
        more = size * kept * int(np.prod(axes))
        us = us + share * (message_us + us_per_byte * more)
        sent = sent + share * more
    return ExpectedCost(us, sent)


def _operations_us(prices: np.ndarray, chosen: Tensor, flow: CellFlow) -> Tensor:
    first, second = torch.from_numpy(prices).to(chosen.dtype).unbind(-1)
    return (chosen * (flow.operations * first + (1 - flow.operations) * second)).sum()


def _sums_us(cell: SuperCell, prices: np.ndarray, chosen: Tensor, flow: CellFlow) -> Tensor:
    """Time of the nodes' sums, whose numbers of inputs are random."""
    table = torch.from_numpy(prices).to(chosen.dtype)
    is_none = torch.tensor(cell.is_none)
    total = torch.zeros_like(flow.nodes[0])
    for j in range(1, cell.cell.nodes + 1):
        counts = torch.ones_like(total)[None]
        for i in range(j):
            absent = chosen[cell.pairs.index((i, j))][is_none].sum()
            zero = torch.zeros_like(counts[:1])
            counts = torch.cat([counts * absent, zero]) + torch.cat([zero, counts * (1 - absent)])
        mixed = flow.nodes[j] * table[: j + 1, FIRST] + (1 - flow.nodes[j]) * table[: j + 1, SECOND]
        total = total + (counts * mixed).sum()
    return total


def sent_shares(shape: SupernetShape, flows: list[CellFlow], choices: Choices) -> dict[str, Tensor]:
    """Probability that each tensor is sent to the second device, by name."""
    found: dict[str, Tensor] = {}
    # The head is on the second device and reads the last node.
    needed = torch.ones_like(flows[0].nodes[0])
    for cell, flow, operations, resources in reversed(
        list(zip(shape.cells, flows, choices.operations, choices.resources, strict=True))
    ):
        for j in range(cell.cell.nodes, 0, -1):
            alias = _alias(cell, operations, j)
            found[cell.node(j)] = flow.nodes[j] * needed * (1 - alias)
            needed = _needed(cell, operations, resources, flow, j - 1, alias * needed)
            for i in range(j):
                p = cell.pairs.index((i, j))
                real = ~(torch.tensor(cell.is_none) | torch.tensor(cell.is_skip))
                made = (operations[p] * flow.operations[p])[real].sum()
                found[cell.output((i, j))] = made * (1 - flow.nodes[j])
    found["stem"] = needed
    return found


def _alias(cell: SuperCell, operations: Tensor, j: int) -> Tensor:
    """Probability that node `j` is the node before it: a skip is its only input."""
    only = operations[cell.pairs.index((j - 1, j))][torch.tensor(cell.is_skip)].sum()
    for i in range(j - 1):
        only = only * operations[cell.pairs.index((i, j))][torch.tensor(cell.is_none)].sum()
    return only


def _needed(
    cell: SuperCell,
    operations: Tensor,
    resources: Tensor,
    flow: CellFlow,
    i: int,
    through_alias: Tensor,
) -> Tensor:
    """Probability that the second device reads node `i`, if it is on the first."""
    is_none, is_skip = torch.tensor(cell.is_none), torch.tensor(cell.is_skip)
    unread = torch.ones_like(through_alias)
    for j in range(i + 1, cell.cell.nodes + 1):
        p = cell.pairs.index((i, j))
        moved = (operations[p] * (1 - resources[p]))[~(is_none | is_skip)].sum()
        skipped = operations[p][is_skip].sum()
        if j == i + 1:
            # As the only input, the skip makes no tensor; readers of node j read node i.
            skipped = skipped - _alias(cell, operations, j)
            moved = moved + through_alias
        unread = unread * (1 - moved - skipped * (1 - flow.nodes[j]))
    return 1 - unread
