"""The answer of one request: which exit is taken, whatever order the exits' results arrive in."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from layoutsel.exits.policy import Policy


@dataclass(frozen=True, kw_only=True)
class AnswerRule:
    """Conditions under which an exit answers."""

    policy: Policy
    """Thresholds of the exits."""
    answer: str
    """Entry of :data:`layoutsel.exits.answers.ANSWERS`."""

    reads_all: bool = False
    """True if the results of all exits are read, and not those of the answer alone."""

    @cached_property
    def levels(self) -> ctypes.Array[ctypes.c_double] | None:
        """Threshold of each exit for the plugin's chain: NaN for one that is never sure.

        None if thresholds alone do not decide, or if all results are read.
        """
        if self.policy.patience is not None or self.reads_all:
            return None
        levels = [math.nan if one is None else one for one in self.policy.thresholds]
        return (ctypes.c_double * len(levels))(*levels)

    def is_sure(self, exit_: int, scores: Mapping[int, float], labels: Mapping[int, int]) -> bool:
        """Tell if an exit's result is good enough, as :meth:`Policy.sure` does.

        Parameters
        ----------
        exit_
            Number of an exit that has arrived.
        scores, labels
            Scores and predicted classes of the exits that have arrived.
        """
        if exit_ + 1 == len(self.policy.thresholds):
            return True
        threshold = self.policy.thresholds[exit_]
        if threshold is None:
            return False
        if scores[exit_] >= threshold:
            return True
        return self.policy.patience is not None and self._row(exit_, scores, labels)

    def _row(self, exit_: int, scores: Mapping[int, float], labels: Mapping[int, int]) -> bool:
        """Tell if an exit ends enough equal predictions in a row.

        A score that is not a number, and an exit that has not arrived, end the row.
        """
        thresholds = self.policy.thresholds[: exit_ + 1]
        row = [e for e, threshold in enumerate(thresholds) if threshold is not None]
        row = row[-self.policy.patience :] if self.policy.patience else row
        return len(row) == self.policy.patience and all(
            labels.get(one) == labels[exit_] and not math.isnan(scores[one]) for one in row
        )


class Verdict:
    """Results of one request so far, and the exit that answers it.

    Parameters
    ----------
    rule
        Conditions under which an exit answers.
    exits
        Numbers of the exits that run, in order; the final one is the last.
    """

    __slots__ = (
        "_final", "_labels", "_left", "_rule", "_scores", "answer", "bound", "has_nan",
        "is_settled",
    )  # fmt: skip

    def __init__(self, rule: AnswerRule, exits: Sequence[int]) -> None:
        self._rule = rule
        self._left = set(exits)
        self._final = exits[-1]
        self._labels: dict[int, int] = {}
        self._scores: dict[int, float] = {}
        self.has_nan = False
        """True if a score that is not a number has arrived."""
        self.bound = self._final
        """Deepest exit that may still answer."""
        self.answer: int | None = None
        """Exit that answers; None while undecided. It never changes."""
        self.is_settled = False
        """True if :meth:`settle` has chosen the answer."""

    @property
    def is_complete(self) -> bool:
        """True if the final exit has arrived."""
        return self._final in self._labels

    def arrive(self, exit_: int, score: float, label: int) -> None:
        """Take the result of an exit."""
        self._left.discard(exit_)
        self.has_nan = self.has_nan or math.isnan(score)
        self._labels[exit_], self._scores[exit_] = label, score
        if self.answer is not None:
            return
        rule = self._rule
        sure = [e for e in self._scores if rule.is_sure(e, self._scores, self._labels)]
        if not sure:
            return
        self.bound = min(sure)
        is_ordered = rule.answer == "ordered"
        if not (is_ordered and any(earlier < self.bound for earlier in self._left)):
            self.answer = self.bound

    def settle(self) -> bool:
        """Answer with the best result so far, if undecided; False if there is none.

        A sure exit that waits for earlier ones is the best, then the one with the largest score.
        """
        if self.bound in self._scores:
            self.answer = self.bound
        else:
            known = {e: score for e, score in self._scores.items() if not math.isnan(score)}
            self.answer = max(known, key=known.__getitem__, default=None)
        self.is_settled = self.answer is not None
        return self.is_settled
