"""Paths of policies from strict to loose, which a certificate tests in this order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from layoutsel.exits.accuracy import score_accuracies
from layoutsel.exits.candidates import between
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.pattern_times import PatternTimes
from layoutsel.exits.policy import Policy
from layoutsel.exits.thresholds import fastest

STEPS = 16
"""Number of steps from no loss to the largest drop of accuracy."""
_STRICTER = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)
"""Shares of sure answers that are kept before the first policy of a path."""


class PolicyRule(Protocol):
    """Rule that chooses a path of policies on some samples."""

    def __call__(
        self, matrix: ExitMatrix, max_drop: float, times: PatternTimes, patience: int | None
    ) -> Iterator[Policy]:
        """Yield policies from strict to loose until more than `max_drop` of the samples lose."""
        ...


def fastest_path(
    matrix: ExitMatrix, max_drop: float, times: PatternTimes, patience: int | None
) -> Iterator[Policy]:
    """Yield the fastest policies for a growing number of losses, after stricter ones."""
    budgets = np.unique(np.floor(matrix.samples * max_drop * np.arange(STEPS + 1) / STEPS))
    for place, most_losses in enumerate(budgets):
        policy = fastest(matrix, int(most_losses), times, patience=patience).policy
        if place == 0:
            yield from (stricter(policy, matrix, share) for share in _STRICTER)
        yield policy


def accuracy_path(
    matrix: ExitMatrix, max_drop: float, times: PatternTimes, patience: int | None
) -> Iterator[Policy]:
    """Yield policies whose thresholds stand for one accuracy of all exits, from high to low.

    Times have no influence, see :mod:`layoutsel.exits.accuracy`.
    """
    fitted = score_accuracies(matrix)
    for least in np.unique(np.concatenate([one.accuracies for one in fitted]))[::-1]:
        thresholds = (*(one.threshold(least) for one in fitted), None)
        policy = Policy(score=matrix.score, thresholds=thresholds, patience=patience)
        if policy.losses(matrix).mean() > max_drop:
            return
        yield policy


def stricter(policy: Policy, matrix: ExitMatrix, share: float) -> Policy:
    """Raise all thresholds so that about a share of the sure scores of each exit still is sure."""
    raised = list(policy.thresholds)
    for i, threshold in enumerate(policy.thresholds):
        scores = matrix.scores[:, i]
        sure = scores[scores >= (np.inf if threshold is None else threshold)]
        if threshold is not None and len(sure):
            kept = np.quantile(sure, 1 - share, method="higher")
            raised[i] = max(threshold, *between(np.array([kept]), scores))
    return replace(policy, thresholds=tuple(raised))


RULES: Mapping[str, PolicyRule] = {"time": fastest_path, "accuracy": accuracy_path}
"""Rules by name."""
