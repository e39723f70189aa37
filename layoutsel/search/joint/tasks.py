"""Messages between the search and the child process that trains its networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layoutsel.search.space import Architecture, Space
from layoutsel.search.trained import PartWeights


@dataclass(frozen=True, kw_only=True)
class TrainingSchedule:
    """Settings of a training."""

    epochs: int
    """Number of passes over the data."""
    rate: float = 3e-3
    """Largest learning rate; it rises from zero and falls to zero."""
    weight_decay: float = 0.02
    """Decay of the weights, relative to the learning rate."""
    batch: int = 64
    """Number of samples of a step."""
    networks: int = 2
    """Number of networks whose gradients a step of common weights adds up."""


@dataclass(frozen=True, kw_only=True)
class SharedTraining:
    """Training of common weights of all networks; the first message."""

    space: Space
    """Networks."""
    schedule: TrainingSchedule
    """Settings."""
    seed: int
    """Seed of the data's parts, the weights and the order of samples and networks."""
    threads: int
    """Number of threads."""
    checkpoint: str
    """File that holds the state after each pass; a training goes on where it ended."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """SearchQuestion for the validation accuracy of networks with the common weights.

    The answer is a tuple of shares of right answers.
    """

    architectures: tuple[Architecture, ...]
    """Networks."""


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """Training of one network, from its common weights."""

    name: str
    """Name for reports."""
    architecture: Architecture
    """Network."""
    schedule: TrainingSchedule
    """Settings."""
    exits: tuple[str, ...] = ()
    """Parts whose tensors get an early exit; the losses of all exits are added."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass over the training data."""

    network: str
    """Name of the network; ``shared`` for common weights."""
    epoch: int
    """Number of passes so far."""
    epochs: int
    """Number of passes in all."""
    loss: float
    """Mean loss over the samples."""
    seconds: float
    """Wall time, seconds."""
    cpu_s: float
    """Processor time, seconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Retrained:
    """A network after its own training."""

    weights: PartWeights
    """Weights by part, with the normalisations folded."""
    accuracies: Mapping[str, float]
    """Share of right answers by part of the data: ``tune`` and ``test``."""
    exits: Mapping[str, tuple[float, ...]]
    """Share of right answers of each early exit, by part of the data."""
    cpu_s: float
    """Processor time of the training, seconds."""


Message = SharedTraining | Evaluation | Retraining | None
"""Message to the child; None to go on."""
Answer = Pass | Retrained | tuple[float, ...] | None
"""Answer of the child; None when a training has ended."""
