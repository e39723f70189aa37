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
BETWEEN = 16
"""Number of steps from one policy of a path to the next."""
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
    """Yield the fastest policies for a growing number of losses, after stricter ones.

    Steps in between let a certificate come close to the first policy that fails.
    """
    before: Policy | None = None
    for policy in _fastest_policies(matrix, max_drop, times, patience):
        if before is not None:
            for step in range(1, BETWEEN):
                yield between_policies(before, policy, matrix, step / BETWEEN)
        yield policy
        before = policy


def _fastest_policies(
    matrix: ExitMatrix, max_drop: float, times: PatternTimes, patience: int | None
) -> Iterator[Policy]:
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


def between_policies(one: Policy, other: Policy, matrix: ExitMatrix, share: float) -> Policy:
    """Make a policy with the exits of `other`, at a share of the way from `one` to `other`.

    Each exit's share of sure scores is interpolated.
    """
    thresholds: list[float | None] = list(other.thresholds)
    for i, (start, end) in enumerate(zip(one.thresholds, other.thresholds, strict=True)):
        if end is None or start == end:
            continue
        scores = matrix.scores[:, i]
        scores = np.sort(scores[~np.isnan(scores)])
        first, last = (
            len(scores) - np.searchsorted(scores, np.inf if least is None else least)
            for least in (start, end)
        )
        kept = round(float(first + share * (last - first)))
        if kept:
            thresholds[i] = between(scores[len(scores) - kept :][:1], scores)[0]
        else:
            thresholds[i] = start if start is not None else 1.0
    return replace(other, thresholds=tuple(thresholds))


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
