"""Audit of a promised accuracy: requests that run all exits, and a sequential test on them.

Cancelled requests show nothing about the exits after the answer. So a share of the requests runs to
the end, and each sure exit is compared with the final one.

The test is a mixture of likelihood ratios (Wald 1945, Robbins 1970) over larger shares of
disagreement, and over the requests from which on they may hold. Each ratio is a supermartingale
while the share is at most the allowed one, and so is their weighted sum. The sum ever exceeds
1 / error with at most the probability `error`, whatever the number of requests (Ville 1939). The
mixture over starts finds a change after a long time without one (e-detectors of Shin, Ramdas and
Rinaldo 2022, with weights that add up to one).
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import Counter
from dataclasses import dataclass

import numpy as np

from layoutsel.exits.certificate import upper_bound
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.policy import Policy
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)

SHARE = 0.01
"""Default share of requests that are audited."""
ERROR = 0.01
"""Default probability of a false alarm, over any number of requests."""
_TIMES_WORSE = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""Multiples of the allowed share of disagreement that the test looks for."""
_MOST_SHARE = 0.99
"""Largest share that the test looks for."""
_MOST_PATTERNS = 4096
"""Number of distinct patterns of sure exits that are counted; rarer new ones are not."""


class DisagreementTest:
    """Sequential test of the hypothesis that at most a given share of requests disagrees.

    Parameters
    ----------
    allowed
        Share of requests that may disagree, between 0 and 1.
    error
        Probability of a rejection, at any time, of a hypothesis that is true.

    Raises
    ------
    LayoutselError
        If one of them is not between 0 and 1.
    """

    def __init__(self, allowed: float, error: float = ERROR) -> None:
        for name, value in (("allowed disagreement", allowed), ("error", error)):
            if not 0 < value < 1:
                raise LayoutselError(
                    f"audit: got {name} {value:g}; expected a number within 0 to 1"
                )
        worse = {min(factor * allowed, _MOST_SHARE) for factor in _TIMES_WORSE}
        shares = np.array([share for share in sorted(worse) if share > allowed] or [1.0])
        with np.errstate(divide="ignore"):  # a share of 1 excludes any agreement
            self._ratios = (
                np.log((1 - shares) / (1 - allowed)),  # of a request that agrees
                np.log(shares / allowed),
            )
        self._limit = -math.log(error)
        self._begun = np.full(len(shares), -math.inf)
        self.requests = 0
        """Number of requests seen."""
        self.is_rejected = False
        """True once the hypothesis was rejected; it never changes back."""

    @property
    def evidence(self) -> float:
        """Natural logarithm of the weighted sum of likelihood ratios."""
        begun = float(np.logaddexp.reduce(self._begun)) - math.log(len(self._begun))
        return float(np.logaddexp(begun, -math.log(self.requests + 1)))

    def add(self, disagrees: bool) -> bool:
        """Take a request; True if the hypothesis is now rejected."""
        self.requests += 1
        # Weights 1 / (n (n + 1)) of the starts add up to one.
        weight = -math.log(self.requests * (self.requests + 1.0))
        self._begun = np.logaddexp(self._begun, weight) + self._ratios[disagrees]
        self.is_rejected = self.is_rejected or self.evidence >= self._limit
        return self.is_rejected


@dataclass(frozen=True, kw_only=True)
class AuditedRequest:
    """Results of a request that ran to its end."""

    sure: tuple[int, ...]
    """Numbers of the sure exits before the final one, ascending."""
    labels: tuple[int, ...]
    """Their predicted classes."""
    final: int
    """Predicted class of the final exit."""


@dataclass(frozen=True, kw_only=True)
class AuditStatistics:
    """Results of an audit so far."""

    requests: int
    """Number of audited requests."""
    disagreements: int
    """Requests in which a sure exit differed from the final one."""
    disagreement_bound: float
    """Upper bound on their share at 95 % confidence, if it does not change; 1 without requests."""
    allowed: float | None
    """Allowed share; None if nothing was promised."""
    is_at_risk: bool
    """True once the test has rejected that the share is at most the allowed one."""
    patterns: tuple[tuple[tuple[int, ...], int], ...]
    """Sets of sure exits with their number of requests, the most frequent one first."""


class ExitAudit:
    """Choice of the audited requests, and what they show. Safe for use by several threads.

    Parameters
    ----------
    allowed
        Share of requests in which a sure exit may differ from the final one; None for statistics
        without a test.
    share
        Share of requests that are audited, chosen at random; 0 for none.
    error
        Probability of a false alarm over any number of requests.
    seed
        Seed of the choice; None for one that differs in every run.

    Raises
    ------
    LayoutselError
        If a share or the error is out of range.
    """

    def __init__(
        self,
        allowed: float | None,
        *,
        share: float = SHARE,
        error: float = ERROR,
        seed: int | None = None,
    ) -> None:
        if not 0 <= share <= 1:
            raise LayoutselError(f"audit: got the share {share:g}; expected 0 to 1")
        self._allowed, self._share = allowed, share
        self._test = None if allowed is None else DisagreementTest(allowed, error)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._requests = self._disagreements = 0
        self._patterns = Counter[tuple[int, ...]]()
        self.is_at_risk = False
        """True once the accuracy promise is at risk; it stays so."""

    def draws(self) -> bool:
        """Decide whether the next request is audited."""
        return self._random.random() < self._share

    def add(self, seen: AuditedRequest) -> None:
        """Take the results of an audited request."""
        disagrees = any(label != seen.final for label in seen.labels)
        with self._lock:
            self._requests += 1
            self._disagreements += disagrees
            if seen.sure in self._patterns or len(self._patterns) < _MOST_PATTERNS:
                self._patterns[seen.sure] += 1
            was_at_risk = self.is_at_risk
            if self._test is not None:
                self.is_at_risk = self._test.add(disagrees)
        if self.is_at_risk and not was_at_risk:
            logger.warning(
                "accuracy promise at risk: sure exits differed from the final one in %d of %d "
                "audited requests; at most %g %% are allowed. Exits are off from now on; calibrate "
                "them on recent data",
                self._disagreements, self._requests, 100 * (self._allowed or 0),
            )  # fmt: skip

    def statistics(self) -> AuditStatistics:
        """Return the results so far."""
        with self._lock:
            return AuditStatistics(
                requests=self._requests,
                disagreements=self._disagreements,
                disagreement_bound=upper_bound(self._disagreements, self._requests, 0.95),
                allowed=self._allowed,
                is_at_risk=self.is_at_risk,
                patterns=tuple(self._patterns.most_common()),
            )


def allowed_disagreement(policy: Policy, seen: ExitMatrix | None = None) -> float | None:
    """Share of requests in which a sure exit may differ from the final one; None if unknown.

    A certificate without labels promises this share itself. One with labels does not count
    differences between two wrong answers, and those where the sure exit is right. So the
    observations tell how many differences to expect.

    Parameters
    ----------
    policy
        Policy with its certificate.
    seen
        Observations of the calibration; without them, the certificate's drop is taken.
    """
    proof = policy.certificate
    if proof is None:
        return None
    if not proof.has_labels or seen is None:
        return proof.max_drop
    final = seen.predictions[:, -1:]
    differs = (policy.sure(seen) & (seen.predictions[:, :-1] != final)).any(axis=1)
    found = upper_bound(int(differs.sum()), seen.samples, proof.confidence)
    return min(max(proof.max_drop, found), _MOST_SHARE)
