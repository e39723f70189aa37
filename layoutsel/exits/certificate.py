"""Certificates: policies whose loss of accuracy is proved on samples used for nothing else.

Policies are tested from strict to loose, each at the full error level, until the first failure.
The order was fixed before, so the probability of any false statement is at most this level
(fixed-sequence testing; learn-then-test, Angelopoulos et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from scipy.stats import beta

from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.policy import Certificate, Policy, PolicyError

MOST_SAMPLES = 10**9
"""Largest number of samples that a refusal names."""


class NotCertified(PolicyError):
    """No policy can be certified with the given samples.

    Parameters
    ----------
    message
        The error in one sentence.
    samples_without_losses
        Number of samples for the proof if none of them loses.
    samples_at_rate
        Number of samples for the proof at the share of losses seen; None if there is none.
    """

    def __init__(
        self, message: str, *, samples_without_losses: int, samples_at_rate: int | None
    ) -> None:
        super().__init__(message)
        self.samples_without_losses = samples_without_losses
        self.samples_at_rate = samples_at_rate


def check_promise(max_drop: float, confidence: float) -> None:
    """Reject a largest drop or a confidence that is not strictly between 0 and 1."""
    for name, value in (("largest drop of accuracy", max_drop), ("confidence", confidence)):
        if not 0 < value < 1:
            raise PolicyError(f"{name}: got {value:g}; expected a number between 0 and 1")


def upper_bound(losses: int, samples: int, confidence: float) -> float:
    """Exact upper bound on a probability (Clopper and Pearson 1934).

    Parameters
    ----------
    losses
        Number of samples that lose.
    samples
        Number of samples, each of which loses with this probability.
    confidence
        Probability that the bound holds.
    """
    if losses >= samples:
        return 1.0
    return float(beta.ppf(confidence, losses + 1, samples - losses))


def samples_needed(max_drop: float, confidence: float, rate: float = 0.0) -> int | None:
    """Smallest number of samples that proves a drop of accuracy if a share `rate` of them loses.

    Parameters
    ----------
    max_drop
        Largest share of samples that may lose.
    confidence
        Probability of the statement.
    rate
        Share of samples that lose; their number is rounded up.

    Returns
    -------
    int or None
        None if no number is enough, or more than :data:`MOST_SAMPLES` are needed.
    """
    if rate >= max_drop:
        return None
    low, high = 0, 1
    while not _proves(high, max_drop, confidence, rate):
        low, high = high, 2 * high
        if high > MOST_SAMPLES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if _proves(middle, max_drop, confidence, rate):
            high = middle
        else:
            low = middle
    return high


def _proves(samples: int, max_drop: float, confidence: float, rate: float) -> bool:
    return upper_bound(math.ceil(rate * samples), samples, confidence) <= max_drop


def certify(
    path: Sequence[Policy], proof: ExitMatrix, *, max_drop: float, confidence: float
) -> Policy:
    """Take the last policy of a path before the first whose drop of accuracy is not proved.

    The hypothesis of each test is that more than `max_drop` of all samples lose. It is rejected if
    the exact bound on the share is at most `max_drop`.

    Parameters
    ----------
    path
        Policies from strict to loose, chosen without the samples of the proof.
    proof
        Observations of samples that were used for nothing else.
    max_drop
        Largest share of samples that may lose.
    confidence
        Probability of the statement over draws of the samples.

    Raises
    ------
    NotCertified
        If the first policy fails.
    PolicyError
        If the path is empty, a policy does not fit the observations, or a number is out of range.
    """
    check_promise(max_drop, confidence)
    if not path:
        raise PolicyError("certificate: got no policy to prove; expected at least one")
    passed: tuple[Policy, int, float] | None = None
    for policy in path:
        losses = int(policy.losses(proof).sum())
        bound = upper_bound(losses, proof.samples, confidence)
        if bound > max_drop:
            break
        passed = policy, losses, bound
    if passed is None:
        raise _refusal(losses, proof.samples, max_drop, confidence)
    certified, losses, bound = passed
    certificate = Certificate(
        max_drop=max_drop,
        confidence=confidence,
        samples=proof.samples,
        losses=losses,
        bound=bound,
        data_hash=proof.data_hash(),
        has_labels=proof.labels is not None,
    )
    return replace(certified, certificate=certificate)


def _refusal(losses: int, samples: int, max_drop: float, confidence: float) -> NotCertified:
    least = samples_needed(max_drop, confidence) or MOST_SAMPLES
    at_rate = samples_needed(max_drop, confidence, losses / samples)
    if at_rate is None:
        needed = "no number of samples is enough at this share"
    else:
        needed = f"about {at_rate} samples are enough at this share"
    return NotCertified(
        f"certificate: got {samples} samples, of which {losses} lose with the strictest policy; "
        f"expected enough to prove a drop of at most {max_drop:g} at confidence {confidence:g}: "
        f"{least} without any loss, and {needed}. Give more samples, a larger drop or a lower "
        f"confidence",
        samples_without_losses=least,
        samples_at_rate=at_rate,
    )
