"""Audit of accuracy: false alarms, detection of drift, statistics."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from exit_models import policy_of
from scipy.stats import binom

from layoutsel.errors import LayoutselError
from layoutsel.exits.audit import AuditedRequest, DisagreementTest, ExitAudit, allowed_disagreement
from layoutsel.exits.certificate import upper_bound
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.policy import Certificate


def alarm_at(draws: np.ndarray, allowed: float, error: float) -> int | None:
    """Number of requests until the alarm; None if there is none."""
    test = DisagreementTest(allowed, error)
    return next((n for n, one in enumerate(draws, 1) if test.add(bool(one))), None)


@pytest.mark.parametrize("allowed", [0.01, 0.2])
def test_false_alarms_are_as_rare_as_stated(allowed):
    """At the allowed share itself, which is the worst case, with a large error to see alarms."""
    error, repeats = 0.1, 200
    generator = np.random.default_rng(0)
    alarms = sum(
        alarm_at(generator.random(2000) < allowed, allowed, error) is not None
        for _ in range(repeats)
    )
    assert alarms <= binom.ppf(0.999, repeats, error)
    assert alarms > 0, "a test that never alarms proves nothing"


@pytest.mark.parametrize(("quiet", "longest"), [(0, 400), (3000, 900)])
def test_drift_is_found(quiet, longest):
    """Also after a long time without drift, which does not outweigh it."""
    allowed, drifted = 0.01, 0.06
    generator = np.random.default_rng(1)
    delays = []
    for _ in range(40):
        shares = np.r_[np.full(quiet, allowed / 2), np.full(3000, drifted)]
        found = alarm_at(generator.random(len(shares)) < shares, allowed, 0.01)
        assert found is not None
        assert found > quiet
        delays.append(found - quiet)
    assert np.median(delays) < longest


def test_evidence_is_the_sum_over_shares_and_starts():
    draws = [False, True, True, False, True]
    test = DisagreementTest(0.3, 0.001)
    for one in draws:
        test.add(one)
    shares = [0.45, 0.6, 0.9, 0.99]
    total = 1 / (len(draws) + 1)
    for start in range(1, len(draws) + 1):
        for share in shares:
            ratio = np.prod(
                [share / 0.3 if one else (1 - share) / 0.7 for one in draws[start - 1 :]]
            )
            total += ratio / (start * (start + 1)) / len(shares)
    assert test.evidence == pytest.approx(np.log(total))


def test_risk_is_reported_once_and_stays(caplog):
    audit = ExitAudit(0.01, share=1.0)
    assert audit.draws()
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            audit.add(AuditedRequest(sure=(0, 1), labels=(3, 4), final=4))
        for _ in range(500):
            audit.add(AuditedRequest(sure=(), labels=(), final=4))
    assert audit.is_at_risk
    assert caplog.text.count("accuracy promise at risk") == 1
    found = audit.statistics()
    assert (found.requests, found.disagreements) == (550, 50)
    assert found.patterns == (((), 500), ((0, 1), 50))
    assert found.disagreement_bound == upper_bound(50, 550, 0.95)


def test_agreement_is_no_risk():
    audit = ExitAudit(0.01, share=1.0)
    for _ in range(2000):
        audit.add(AuditedRequest(sure=(0,), labels=(4,), final=4))
    assert not audit.is_at_risk
    assert audit.statistics().disagreements == 0


def test_statistics_without_a_promise():
    audit = ExitAudit(None, share=0.0)
    assert not any(audit.draws() for _ in range(100))
    for _ in range(100):
        audit.add(AuditedRequest(sure=(0,), labels=(1,), final=2))
    assert not audit.is_at_risk
    assert audit.statistics().disagreements == 100
    assert ExitAudit(None).statistics().disagreement_bound == 1


def test_share_of_audited_requests():
    audit = ExitAudit(None, share=0.05, seed=0)
    count = sum(audit.draws() for _ in range(20000))
    assert binom.ppf(1e-4, 20000, 0.05) <= count <= binom.ppf(1 - 1e-4, 20000, 0.05)


def test_allowed_disagreement():
    proof = Certificate(
        max_drop=0.02, confidence=0.9, samples=500, losses=1, bound=0.01, data_hash="0"
    )
    plain = policy_of(0.5)
    seen = ExitMatrix(
        exits=("early", "final"),
        score="max_prob",
        scores=np.array([[0.9, 1.0]] * 30 + [[0.1, 1.0]] * 70),
        predictions=np.array([[0, 1]] * 60 + [[1, 1]] * 40),
    )
    assert allowed_disagreement(plain, seen) is None
    with_labels = replace(plain, certificate=proof)
    assert allowed_disagreement(with_labels) == 0.02
    # Sure and different: the first 30 samples.
    assert allowed_disagreement(with_labels, seen) == upper_bound(30, 100, 0.9)
    without = replace(plain, certificate=replace(proof, has_labels=False))
    assert allowed_disagreement(without, seen) == 0.02


@pytest.mark.parametrize(
    "make",
    [
        lambda: DisagreementTest(0.0),
        lambda: DisagreementTest(0.1, 1.0),
        lambda: ExitAudit(0.1, share=float("nan")),
    ],
)
def test_impossible_settings(make):
    with pytest.raises(LayoutselError, match=r"audit: got .*expected"):
        make()
