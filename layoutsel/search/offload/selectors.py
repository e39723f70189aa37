"""Selectors of a supernet as relaxed random variables: one of several, one of two, channels.

Noise is drawn apart from the samples, so that a sample is a differentiable function of the logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.transmitted import PRECISIONS

GATE_TEMPERATURE, GATE_LOW, GATE_HIGH = 2 / 3, -0.1, 1.1
"""Temperature and ends of the stretched interval of channel gates (arXiv 1712.01312, section 4)."""
OPEN_LOGIT, OPEN_SPREAD = 2.0, 0.01
"""Mean and deviation of the first logits of gates: most are open, and no two are equal."""
OPEN_SHIFT = -GATE_TEMPERATURE * math.log(-GATE_LOW / GATE_HIGH)
"""Logit of the probability that a gate with the logit 0 is open."""
MOST_LOGIT = 4.0
"""Greatest size of the logit of a probability."""
_TINY = 1e-6
"""Least distance of uniform numbers from 0 and 1."""


def gumbel_softmax(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Sample weights of the entries of the last axis, which sum to 1 (arXiv 1611.01144)."""
    gumbel = -torch.log(-torch.log(uniform))
    return functional.softmax((logits + gumbel) / temperature, dim=-1)


def binary_concrete(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Sample numbers between 0 and 1 that are near one of them (arXiv 1611.00712)."""
    return torch.sigmoid((logits + torch.logit(uniform)) / temperature)


def hard_concrete(logits: Tensor, uniform: Tensor) -> Tensor:
    """Sample gates in [0, 1], both ends with a probability of their own (arXiv 1712.01312)."""
    between = binary_concrete(logits, uniform, GATE_TEMPERATURE)
    return torch.clamp(GATE_LOW + (GATE_HIGH - GATE_LOW) * between, 0.0, 1.0)


def open_probability(logits: Tensor) -> Tensor:
    """Probability that a gate of :func:`hard_concrete` is not 0."""
    return torch.sigmoid(logits + OPEN_SHIFT)


@dataclass(frozen=True)
class Choices:
    """Selectors' values, as probabilities, samples or a decision."""

    operations: tuple[Tensor, ...]
    """Weight of each operation of each pair, by cell, (pairs, operations)."""
    resources: tuple[Tensor, ...]
    """Share of the first device by cell, (pairs, operations), given that the input is there and
    that the cell is the transmission cell."""
    channels: Mapping[str, Tensor]
    """Gate of each channel by tensor, (channels,)."""
    precision: Tensor
    """Weight of each precision of sent tensors, (precisions,)."""
    position: Tensor
    """Weight of each cell as the transmission cell, (cells,). Cells before it are on the first
    device, and cells after it on the second."""
    link: Tensor
    """Probability of each link, (links,). Networks compute the same over each, so that samples have
    the probabilities as well: noise would add nothing but its variance to the expected time."""

    def placed(self, position: Tensor) -> Choices:
        """Copy with the first device's shares under other weights of the transmission cell."""
        later = position.flip(0).cumsum(0).flip(0) - position
        resources = tuple(
            before + here * own
            for before, here, own in zip(later, position, self.resources, strict=True)
        )
        return replace(self, resources=resources, position=position)


class Selectors(nn.Module):
    """Logits of all selectors.

    Parameters
    ----------
    shape
        Shape of the supernet.
    precisions
        Precisions of sent tensors to choose from, names in
        :data:`~layoutsel.search.offload.transmitted.PRECISIONS`.
    links
        Number of links to choose from.
    """

    def __init__(
        self,
        shape: SupernetShape,
        precisions: tuple[str, ...] = ("float32",),
        links: int = 1,
    ) -> None:
        super().__init__()
        self.shape = shape
        sizes = [(len(cell.pairs), len(cell.operations)) for cell in shape.cells]
        self.operations = nn.ParameterList(1e-3 * torch.randn(size) for size in sizes)
        self.resources = nn.ParameterList(torch.zeros(size) for size in sizes)
        self.channels = nn.ParameterList(
            OPEN_LOGIT + OPEN_SPREAD * torch.randn(channels)
            for _, (channels, *_) in shape.sendable()
        )
        self.precision = nn.Parameter(torch.zeros(len(PRECISIONS)))
        self.position = nn.Parameter(torch.zeros(len(shape.cells)))
        self.link = nn.Parameter(torch.zeros(links))
        self.tensors = tuple(name for name, _ in shape.sendable())
        for index, cell in enumerate(shape.cells):
            self.register_buffer(f"offered{index}", torch.tensor(cell.offered), persistent=False)
        allowed = torch.tensor([name in precisions for name in PRECISIONS])
        self.register_buffer("allowed", allowed, persistent=False)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by kind of selector."""
        return {
            "operations": list(self.operations),
            "resources": list(self.resources),
            "channels": list(self.channels),
            "precision": [self.precision],
            "position": [self.position],
            "link": [self.link],
        }

    @torch.no_grad()
    def limit(self) -> None:
        """Keep all logits where their gradients do not vanish.

        Those of gates have other bounds, so that both probabilities may be equally small: a tensor
        of many channels would else never be expected to send a single one.
        """
        for kind, parameters in self.groups().items():
            middle = -OPEN_SHIFT if kind == "channels" else 0.0
            for one in parameters:
                one.clamp_(middle - MOST_LOGIT, middle + MOST_LOGIT)

    def sample(self, temperature: float, random: torch.Generator) -> Choices:
        """Draw all selectors."""

        def uniform(like: Tensor) -> Tensor:
            drawn = torch.rand(like.shape, generator=random, dtype=like.dtype)
            return drawn.clamp(_TINY, 1 - _TINY)

        operations = tuple(
            gumbel_softmax(self._masked(index), uniform(logits), temperature)
            for index, logits in enumerate(self.operations)
        )
        resources = tuple(binary_concrete(one, uniform(one), temperature) for one in self.resources)
        gates = [hard_concrete(one, uniform(one)) for one in self.channels]
        precision = gumbel_softmax(self._precision(), uniform(self.precision), temperature)
        position = gumbel_softmax(self.position, uniform(self.position), temperature)
        link = functional.softmax(self.link, -1)
        return Choices(operations, resources, self._by_tensor(gates), precision, position, link)

    def probabilities(self) -> Choices:
        """Probabilities of all selectors; those of gates are of open ones."""
        return Choices(
            tuple(functional.softmax(self._masked(i), -1) for i in range(len(self.operations))),
            tuple(torch.sigmoid(one) for one in self.resources),
            self._by_tensor([open_probability(one) for one in self.channels]),
            functional.softmax(self._precision(), -1),
            functional.softmax(self.position, -1),
            functional.softmax(self.link, -1),
        )

    def _by_tensor(self, values: list[Tensor]) -> Mapping[str, Tensor]:
        return dict(zip(self.tensors, values, strict=True))

    def _masked(self, index: int) -> Tensor:
        """Logits of a cell's operations; those that are not offered have none."""
        offered = getattr(self, f"offered{index}")
        return self.operations[index].masked_fill(~offered, -torch.inf)

    def _precision(self) -> Tensor:
        return self.precision.masked_fill(~self.allowed, -torch.inf)
