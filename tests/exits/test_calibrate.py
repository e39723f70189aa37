"""Calibration: splits, rules, the path of policies, and input that does not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from tiers import examples

from layoutsel.exits.accuracy import rising_means, score_accuracies
from layoutsel.exits.calibrating import calibrate
from layoutsel.exits.certificate import NotCertified
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.pattern_times import even, sequential
from layoutsel.exits.policy import Policy, PolicyError
from layoutsel.exits.policy_paths import RULES, between_policies, stricter
from tests.exits.drawn import drawn

PROMISE = {"max_drop": 0.02, "confidence": 0.95}


def changed(matrix, **fields):
    names = ("exits", "score", "scores", "predictions", "labels")
    return ExitMatrix(**{**{name: getattr(matrix, name) for name in names}, **fields})


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("patience", [None, 2])
def test_paths_go_from_strict_to_loose(rule, patience):
    matrix = drawn(3, 2000, 3)
    path = list(RULES[rule](matrix, 0.02, even(4), patience))
    sure = [policy.sure(matrix).any(axis=1).mean() for policy in path]
    losses = [policy.losses(matrix).mean() for policy in path]
    assert len({policy.thresholds for policy in path}) > 4
    assert sure[0] < sure[-1] / (1 if patience else 2)  # all of them have the patience
    assert losses[0] <= losses[-1] <= 0.02
    assert sure[-1] == pytest.approx(max(sure), rel=0.1)


def test_the_halves_share_no_samples_and_follow_the_seed():
    matrix = drawn(4, 3001, 2)
    first = calibrate(matrix, **PROMISE)
    assert first.certificate.samples == 1501
    assert calibrate(matrix, **PROMISE) == first
    assert calibrate(matrix, **PROMISE, seed=1).certificate.data_hash != first.certificate.data_hash


def test_a_proof_of_its_own_leaves_all_samples_for_the_thresholds():
    tuning, proof = drawn(5, 1500, 2), drawn(6, 1000, 2)
    found = calibrate(tuning, proof=proof, **PROMISE)
    assert found.certificate.data_hash == proof.data_hash()
    assert found.certificate.losses == found.losses(proof).sum()
    again = calibrate(tuning, proof=changed(proof, labels=None), **PROMISE)
    assert not again.certificate.has_labels


def test_times_decide_which_exits_answer():
    matrix = drawn(7, 4000, 2)
    useless = calibrate(matrix, times=sequential([9, 10, 10]), **PROMISE)
    assert useless.thresholds[1] is None
    assert useless.thresholds[0] is not None
    other = calibrate(matrix, times=lambda sure: 1.0 if sure[1] else 10.0, **PROMISE)
    assert other.thresholds[0] is None
    assert other.thresholds[1] is not None


def test_exits_that_are_never_of_use_are_off_with_a_warning(caplog):
    matrix = drawn(8, 2000, 2)
    found = calibrate(matrix, times=lambda sure: 1.0 + sum(sure), **PROMISE)
    assert found == Policy(score="max_prob", thresholds=(None, None, None))
    assert "all exits are off" in caplog.text


def test_too_few_samples_are_refused_with_their_number():
    with pytest.raises(NotCertified, match="got 50 samples") as refusal:
        calibrate(drawn(9, 100, 2), **PROMISE)
    assert refusal.value.samples_without_losses == 149
    with pytest.raises(PolicyError, match="got 1 sample"):
        calibrate(drawn(9, 1, 2), **PROMISE)


def test_input_that_does_not_fit_is_named():
    matrix = drawn(10, 1000, 2)
    with pytest.raises(PolicyError, match="samples that the thresholds are chosen on"):
        calibrate(matrix, proof=changed(matrix), **PROMISE)
    other = drawn(11, 1000, 2)
    with pytest.raises(PolicyError, match="observations of the exits a, b, final; expected exit1"):
        calibrate(matrix, proof=changed(other, exits=("a", "b", "final")), **PROMISE)
    with pytest.raises(PolicyError, match="score 'max_prob'; got observations of 'entropy'"):
        calibrate(matrix, proof=changed(other, score="entropy"), **PROMISE)
    with pytest.raises(PolicyError, match="rule 'best': expected one of time, accuracy"):
        calibrate(matrix, rule="best", **PROMISE)
    with pytest.raises(PolicyError, match="confidence: got 95"):
        calibrate(matrix, max_drop=0.01, confidence=95)


@pytest.mark.parametrize("share", [0.0625, 0.5, 1.0])
def test_a_stricter_policy_keeps_a_share_of_the_sure_answers(share):
    matrix = drawn(12, 1000, 2)
    policy = Policy(score="max_prob", thresholds=(0.5, None, None))
    before, after = (one.sure(matrix)[:, 0] for one in (policy, stricter(policy, matrix, share)))
    assert not (after & ~before).any()
    assert after.sum() == pytest.approx(share * before.sum(), abs=1.01)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
@pytest.mark.parametrize(
    ("one", "other"), [((0.9, None), (0.5, 0.8)), ((0.4, 0.95), (0.6, None)), ((0.7, 0.7),) * 2]
)
def test_a_policy_between_two_has_shares_of_sure_answers_between_theirs(share, one, other):
    matrix = drawn(13, 1000, 2)
    made = [Policy(score="max_prob", thresholds=(*early, None)) for early in (one, other)]
    policy = between_policies(*made, matrix, share)
    first, last, found = (each.sure(matrix).sum(axis=0) for each in (*made, policy))
    for number, threshold in enumerate(other):
        if threshold is None:
            assert policy.thresholds[number] is None  # exits are those of the other one
        else:
            expected = first[number] + share * (last[number] - first[number])
            assert found[number] == pytest.approx(expected, abs=1.01)


@pytest.mark.parametrize("seed", [14, 16, 18, 20])
def test_a_certificate_comes_close_to_the_limit(seed):
    """Thresholds of few samples are too loose; the path's steps before them come close all the same.

    Without steps between the fastest policies, the bounds are 0.0031 to 0.0065.
    """
    tuning, proof = drawn(seed, 80, 3), drawn(seed + 1, 5000, 3)
    certificate = calibrate(tuning, max_drop=0.01, confidence=0.95, proof=proof).certificate
    assert certificate is not None
    assert certificate.bound > 0.008


@settings(max_examples=examples(30), deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=6),
)
def test_rising_means_are_those_of_least_squares(groups):
    sums, counts = np.array(groups, float).T
    found = rising_means(sums, counts)
    assert (np.diff(found) >= 0).all()

    def error(steps):
        return float((counts * (np.cumsum(steps) - sums / counts) ** 2).sum())

    steps = np.diff(found, prepend=0)
    limits = [(0, None)] * len(groups)
    best = minimize(error, np.ones(len(groups)), bounds=limits, tol=1e-12)
    assert error(steps) <= best.fun + 1e-6


def test_an_accuracy_stands_for_the_thresholds_of_all_exits():
    matrix = ExitMatrix(
        exits=("a", "b", "final"),
        score="margin",
        scores=np.array([[0.2, np.nan, 0], [0.4, np.nan, 0], [0.6, np.nan, 0], [0.8, np.nan, 0]]),
        predictions=np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]),
    )
    # Accuracies by score: 0, then 1/2 for two alike scores, then 1.
    first, second = score_accuracies(matrix)
    assert first.accuracies.tolist() == [0, 0.5, 0.5, 1]
    thresholds = [first.threshold(least) for least in (0, 0.5, 0.75, 1)]
    assert thresholds == pytest.approx([0.2, 0.3, 0.7, 0.7])
    assert first.threshold(1.01) is second.threshold(0) is None
