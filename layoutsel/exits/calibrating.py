"""Calibration: thresholds from observations, with a certificate from others."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace

import numpy as np

from layoutsel.exits.certificate import certify, check_promise
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.pattern_times import PatternTimes, even
from layoutsel.exits.policy import Policy, PolicyError
from layoutsel.exits.policy_paths import RULES

_log = logging.getLogger(__name__)


def calibrate(
    matrix: ExitMatrix,
    *,
    max_drop: float,
    confidence: float,
    times: PatternTimes | None = None,
    proof: ExitMatrix | None = None,
    rule: str = "time",
    patience: int | None = None,
    seed: int = 0,
) -> Policy:
    """Choose thresholds and certify that few samples lose, whichever sure exit answers first.

    Parameters
    ----------
    matrix
        Observations. Without `proof`, a random half of them is kept for the certificate.
    max_drop
        Largest share of all samples that may lose.
    confidence
        Probability of the certificate over draws of its samples.
    times
        Time of a request by its sure exits; if None, that of exits in turn, with equal work between
        them.
    proof
        Observations for the certificate, of samples that are not in `matrix`.
    rule
        Entry of :data:`layoutsel.exits.policy_paths.RULES`.
    patience
        Number of exits in a row with equal predictions that make the last of them sure, if any.
    seed
        Seed of the random half.

    Returns
    -------
    Policy
        With a certificate; without one if no exit is of any use, which a warning states.

    Raises
    ------
    NotCertified
        If there are too few samples, or too many of them lose.
    PolicyError
        If an argument is out of range, or the two sets of observations do not fit each other.
    MatrixError
        If they are of two networks.
    """
    check_promise(max_drop, confidence)
    if rule not in RULES:
        raise PolicyError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    tuning, proof = _halves(matrix, seed) if proof is None else (matrix, proof)
    if proof.exits != tuning.exits:
        raise PolicyError(
            f"certificate: got observations of the exits {', '.join(proof.exits)}; expected "
            f"{', '.join(tuning.exits)} as for the thresholds"
        )
    proof.check_model(tuning.model_hash)
    if proof.data_hash() == tuning.data_hash():
        raise PolicyError(
            "certificate: got the samples that the thresholds are chosen on; expected samples that "
            "were used for nothing else"
        )
    # Each step of a path asks for the times of all patterns, which may be simulations.
    cached = functools.cache(times or even(len(tuning.exits)))
    found = RULES[rule](tuning, max_drop, cached, patience)
    # Equal policies in turn would repeat a test; an exit that is never sure needs none.
    path = list(dict.fromkeys(one for one in found if one.useful))
    if not path:
        _log.warning(
            "no exit answers early enough with a drop of accuracy of at most %g; all exits are off",
            max_drop,
        )
        off = (None,) * len(tuning.exits)
        chosen = Policy(score=tuning.score, thresholds=off, patience=patience)
    else:
        chosen = certify(path, proof, max_drop=max_drop, confidence=confidence)
    return replace(chosen, model_hash=tuning.model_hash)


def _halves(matrix: ExitMatrix, seed: int) -> tuple[ExitMatrix, ExitMatrix]:
    if matrix.samples < 2:
        raise PolicyError(
            f"calibration: got {matrix.samples} sample; expected one at least for the thresholds "
            f"and one for the certificate"
        )
    order = np.random.default_rng(seed).permutation(matrix.samples)
    half = matrix.samples // 2
    return matrix.part(np.sort(order[:half])), matrix.part(np.sort(order[half:]))
