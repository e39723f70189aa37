"""Policies: the exits whose answer is good enough, and the proof of the accuracy that they keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layoutsel import documents
from layoutsel.documents.saved import SavedDocument
from layoutsel.exits.matrix import ExitMatrix
from tvm_passes.errors import LayoutselError


class PolicyError(LayoutselError):
    """A policy with impossible values, or one that does not fit the observations."""


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
class Policy(SavedDocument):
    """Thresholds of the exits' scores.

    An exit is sure if its score reaches its threshold, or by patience. Exits without a threshold
    never answer, need not run, and do not count for patience. With patience, all exits that have a
    threshold must run: without one of them, others may become sure.

    Raises
    ------
    PolicyError
        If a value is out of range.
    """

    score: str
    """Entry of :data:`layoutsel.exits.scores.SCORES`; larger scores are surer, within [0, 1]."""
    thresholds: tuple[float | None, ...]
    """Least score of a sure answer by exit; None for exits that never answer, and the final one."""
    patience: int | None = field(default=None, metadata=documents.OPTIONAL)
    """Number of exits in a row with equal predictions that make the last of them sure, if given."""
    certificate: Certificate | None = field(default=None, metadata=documents.OPTIONAL)
    """Proof of the accuracy; None if none was asked for."""
    model_hash: str = field(default="", metadata=documents.OPTIONAL)
    """Hash of the network that was observed; empty if unknown."""

    def __post_init__(self) -> None:
        for fault in _faults(self):
            raise PolicyError(f"policy of exits: {fault}")

    @property
    def useful(self) -> bool:
        """True if any exit may answer before the final one."""
        return any(threshold is not None for threshold in self.thresholds)

    def check_network(self, exits: tuple[str, ...], score: str, model_hash: str = "") -> None:
        """Check that the policy is one for these exits, this kind of score and this network.

        Raises
        ------
        PolicyError
            If it is not.
        """
        if len(exits) != len(self.thresholds):
            raise PolicyError(
                f"the policy has thresholds of {len(self.thresholds)} exits; expected "
                f"{len(exits)}: {', '.join(exits)}. Calibrate the policy for this network"
            )
        if "" not in (model_hash, self.model_hash) and model_hash != self.model_hash:
            raise PolicyError(
                f"the policy is of another network: got the hash {self.model_hash}; expected "
                f"{model_hash}. Thresholds and certificate hold for one network: calibrate again"
            )
        if score != self.score:
            raise PolicyError(
                f"the policy has thresholds of the score {self.score!r}; got observations of "
                f"{score!r}. Observe the network with the policy's score, or calibrate again"
            )

    def sure(self, matrix: ExitMatrix) -> np.ndarray:
        """Sure answers of the exits before the final one, bool, (N, E - 1).

        Raises
        ------
        PolicyError
            If the observations have other exits or another kind of score.
        """
        self.check_network(matrix.exits, matrix.score, matrix.model_hash)
        early = self.thresholds[:-1]
        least = np.array([np.inf if one is None else one for one in early])
        found: np.ndarray = matrix.scores[:, :-1] >= least  # False for NaN
        if self.patience is not None:
            found |= patient(matrix, [one is not None for one in early], self.patience)
        return found

    def losses(self, matrix: ExitMatrix) -> np.ndarray:
        """Samples that lose, bool, (N,): the final exit is right and any sure exit is wrong."""
        lost: np.ndarray = (self.sure(matrix) & matrix.misleading).any(axis=1)
        return lost

    @classmethod
    def read(cls, document: Any, *, file: str = "document") -> Policy:
        """Read a policy from JSON; raises :class:`PolicyError` if it has impossible values."""
        try:
            return super().read(document, file=file)
        except PolicyError as error:
            raise PolicyError(f"{file}: {error}") from error


def patient(matrix: ExitMatrix, active: list[bool], patience: int) -> np.ndarray:
    """Exits that end `patience` equal predictions in a row, bool, (N, E - 1).

    Parameters
    ----------
    matrix
        Observations.
    active
        True for each early exit that runs; the others are skipped.
    patience
        Number of predictions in a row. A NaN score begins a new row and does not count.
    """
    found = np.zeros((matrix.samples, len(active)), bool)
    row = np.zeros(matrix.samples, np.int64)
    last = np.full(matrix.samples, -1)
    for index in np.flatnonzero(active):
        predicted = matrix.predictions[:, index]
        row = np.where(predicted == last, row, 0) + 1
        unknown = np.isnan(matrix.scores[:, index])
        row[unknown] = 0
        last = np.where(unknown, -1, predicted)
        found[:, index] = row >= patience
    return found


def _faults(policy: Policy) -> Iterator[str]:
    """Faults of the values, the first of which is an error."""
    if len(policy.thresholds) < 2:
        yield (
            f"got {len(policy.thresholds)} thresholds; expected one for each exit, the final one "
            f"included, and at least two"
        )
    for index, one in enumerate(policy.thresholds):
        if one is not None and not 0 <= one <= 1:  # NaN is not either
            yield f"got the threshold {one:g} of exit {index + 1}; expected one within [0, 1]"
    if policy.thresholds[-1] is not None:
        yield (
            f"got the threshold {policy.thresholds[-1]:g} of the final exit, which always answers; "
            f"expected none (null)"
        )
    if policy.patience is not None and policy.patience < 1:
        yield f"got the patience {policy.patience}; expected at least 1 exit"
