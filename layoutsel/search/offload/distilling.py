"""Training of a network with the answers of a teacher, a network that was trained before.

Geoffrey Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531, section
2). BottleFit trains a network with a narrow tensor between two devices in this way (arXiv
2201.02693).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A trained network whose answers another one learns."""

    network: nn.Module
    """Network that answers with logits (N, classes)."""
    weight: float
    """Weight of its answers in the loss; one minus that is the weight of the labels."""
    temperature: float
    """Divisor of both networks' logits."""

    def answers(self, inputs: Tensor) -> Tensor:
        """Probability of each class after the division, (N, classes)."""
        self.network.eval()
        with torch.no_grad():
            return functional.softmax(self.network(inputs) / self.temperature, dim=1)

    def loss(self, logits: Tensor, labels: Tensor, answers: Tensor) -> Tensor:
        """Mix the cross entropy of labels with the divergence from the teacher's answers.

        The square of the temperature keeps the size of gradients, as in the paper.
        """
        own = functional.log_softmax(logits / self.temperature, dim=1)
        divergence = functional.kl_div(own, answers, reduction="batchmean")
        labelled = functional.cross_entropy(logits, labels)
        return (1 - self.weight) * labelled + self.weight * self.temperature**2 * divergence
