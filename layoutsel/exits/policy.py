"""Policies: the exits whose answer is good enough, and the proof of the accuracy that they keep."""

from __future__ import annotations

from dataclasses import dataclass, field

from layoutsel import documents


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Proof that a policy's loss of accuracy is bounded, whichever sure exit answers first.

    A sample loses if the final exit is right and the final exit or any sure exit is wrong. Without
    labels, the final exit counts as right.
    """

    max_drop: float
    """Largest share of samples that may lose."""
    confidence: float
    """Probability of the statement over draws of the samples."""
    samples: int
    """Number of samples of the proof, which were used for nothing else."""
    losses: int
    """Number of samples that lose."""
    bound: float
    """Exact binomial upper bound on the share of samples that lose, at `confidence`."""
    data_hash: str
    """SHA-256 of the samples' scores, predictions and labels."""
    has_labels: bool = True
    """False if predictions were compared with those of the final exit."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Thresholds of the exits' scores."""

    score: str
    """Entry of :data:`layoutsel.exits.scores.SCORES`; larger scores are surer, within [0, 1]."""
    thresholds: tuple[float | None, ...]
    """Least score of a sure answer by exit; None for exits that never answer, and the final one."""
    patience: int | None = field(default=None, metadata=documents.OPTIONAL)
    """Number of exits in a row with equal predictions that make the last of them sure, if given."""
    certificate: Certificate | None = field(default=None, metadata=documents.OPTIONAL)
    """Proof of the accuracy; None if none was asked for."""
