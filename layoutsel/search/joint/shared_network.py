"""All networks of a search space in one module, with common weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from layoutsel.search.early_exits import heads_of
from layoutsel.search.joint.modules import Arrays, module_of
from layoutsel.search.joint.widest import widest_parts
from layoutsel.search.parts import HEAD, INPUT, SUM, Part, PartGraph, PartSignature
from layoutsel.search.space import Space
from layoutsel.search.trained import PartWeights

CALIBRATION = 512
"""Number of samples that give a network its statistics of batch normalisation."""


class SharedNetwork(nn.Module):
    """Networks whose parts of equal name and operation share weights.

    Networks with fewer channels use the first ones.

    Parameters
    ----------
    parts
        Parts with the most channels; several of one name have different operations.
    """

    def __init__(self, parts: Iterable[tuple[str, PartSignature]]) -> None:
        super().__init__()
        self.operations = nn.ModuleDict(
            {
                _key(name, signature): module_of(signature)
                for name, signature in parts
                if signature.operation != SUM
            }
        )

    @classmethod
    def of_space(cls, space: Space) -> SharedNetwork:
        """All networks of a space."""
        return cls(widest_parts(space))

    @classmethod
    def of_network(cls, graph: PartGraph) -> SharedNetwork:
        """One network."""
        return cls((part.name, part.signature) for part in graph.parts)

    def forward(self, x: torch.Tensor, graph: PartGraph) -> list[torch.Tensor]:
        """Logits (N, classes) of each head of a network, the final one last.

        Inputs are (N, channels, height, width).
        """
        tensors, heads = {INPUT: x}, []
        for part in graph.parts:
            read = [tensors[name] for name in part.inputs]
            if part.signature.operation == SUM:
                tensors[part.name] = torch.stack(read).sum(0)
            else:
                operation = self.operations[_key(part.name, part.signature)]
                tensors[part.name] = operation(read[0], part.signature.channels)
            if part.signature.operation == HEAD:
                heads.append(tensors[part.name])
        return heads

    def inherit(self, other: SharedNetwork) -> None:
        """Copy the weights of parts that both have; more channels give the first ones."""
        others = other.state_dict()
        with torch.no_grad():
            for name, held in self.state_dict().items():
                given = others.get(name, held)
                held.copy_(given[tuple(slice(size) for size in held.shape)])

    def calibrate(self, graph: PartGraph, inputs: torch.Tensor) -> None:
        """Replace the statistics of batch normalisation by those of a network on some inputs."""
        norms = [one for one in self.modules() if isinstance(one, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        self.train()
        with torch.no_grad():
            self(inputs, graph)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.eval()

    def weights(self, graph: PartGraph) -> PartWeights:
        """Weights of a network by part, with the normalisations folded."""
        return {part.name: tuple(self._arrays(part)) for part in graph.parts}

    def _arrays(self, part: Part) -> Arrays:
        signature = part.signature
        if signature.operation == SUM:
            return []
        operation = self.operations[_key(part.name, signature)]
        found: Arrays = operation.arrays(signature.input_shape[0], signature.channels)
        return found


def _key(name: str, signature: PartSignature) -> str:
    """Name of a submodule, which may hold no dot."""
    return f"{name}/{signature.operation}".replace(".", ":")


def accuracies(
    model: SharedNetwork,
    graph: PartGraph,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    batch: int = 256,
) -> tuple[float, ...]:
    """Share of right answers of each head of a network."""
    model.eval()
    right = torch.zeros(len(heads_of(graph)), dtype=torch.int64)
    with torch.no_grad():
        for chunk, wanted in zip(inputs.split(batch), labels.split(batch), strict=True):
            found = [(logits.argmax(1) == wanted).sum() for logits in model(chunk, graph)]
            right += torch.stack(found)
    return tuple((right.double() / len(labels)).tolist())
