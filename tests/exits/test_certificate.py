"""The promise of certificates over many draws, exact bounds, and refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from tiers import FULL, examples

from layoutsel.exits.calibrating import calibrate
from layoutsel.exits.certificate import NotCertified, certify, samples_needed, upper_bound
from layoutsel.exits.policy import Policy, PolicyError
from tests.exits.drawn import drawn

DROP, CONFIDENCE = 0.02, 0.9
POPULATION = drawn(0, 100_000, 2)
"""Observations of which samples are drawn with replacement, so that true shares are known."""
PATH = [
    Policy(score="max_prob", thresholds=(float(one), float(one) ** 0.25, None))
    for one in np.linspace(0.98, 0.75, 12)
]
"""Policies with true losses from far below the largest drop to far above it."""
LOSING = np.column_stack([policy.losses(POPULATION) for policy in PATH])


def most_violations(draws):
    """Largest number of violations that a promise which holds makes, but in 1 of 10,000 tests."""
    return binom.ppf(1 - 1e-4, draws, 1 - CONFIDENCE)


def test_the_promise_holds_over_two_thousand_draws():
    random = np.random.default_rng(7)
    true = LOSING.mean(axis=0)
    assert true[0] < DROP / 2
    assert true[-1] > 1.5 * DROP
    violations = careless = certified = 0
    for _ in range(2000):
        proof = POPULATION.part(random.integers(POPULATION.samples, size=800))
        seen = np.array([policy.losses(proof).mean() for policy in PATH])
        # Without a proof, the last policy with few losses in the sample breaks the promise often.
        careless += true[np.flatnonzero(seen <= DROP)[-1]] > DROP
        try:
            found = certify(PATH, proof, max_drop=DROP, confidence=CONFIDENCE)
        except NotCertified:
            continue
        certified += 1
        place = [policy.thresholds for policy in PATH].index(found.thresholds)
        violations += true[place] > DROP
    assert certified > 1900
    assert violations <= most_violations(2000)
    assert careless > 2 * most_violations(2000)


@pytest.mark.parametrize("rule", ["time", "accuracy"])
def test_the_promise_holds_for_thresholds_from_the_same_draw(rule):
    random = np.random.default_rng(11)
    draws = 1000 if FULL else 150
    violations = certified = 0
    for _ in range(draws):
        seen = POPULATION.part(random.integers(POPULATION.samples, size=1200))
        try:
            found = calibrate(seen, max_drop=DROP, confidence=CONFIDENCE, rule=rule)
        except NotCertified:
            continue
        certified += found.useful
        violations += found.losses(POPULATION).mean() > DROP
    assert certified > draws / 2
    assert violations <= most_violations(draws)


@settings(max_examples=examples(100), deadline=None)
@given(seed=st.integers(0, 10**6), labels=st.booleans(), patience=st.sampled_from([None, 2]))
def test_the_drop_is_within_the_losses_whichever_sure_exit_answers(seed, labels, patience):
    matrix = drawn(seed, 40, 3, digits=1, labels=labels)
    random = np.random.default_rng(seed)
    chosen = [None if one < 0.3 else float(one) for one in random.random(3)]
    policy = Policy(score="max_prob", thresholds=(*chosen, None), patience=patience)
    may_answer = np.column_stack([policy.sure(matrix), np.ones(40, bool)])
    answers = [random.choice(np.flatnonzero(row)) for row in may_answer]
    right = matrix.predictions[np.arange(40), answers] == matrix.truth
    final = matrix.predictions[:, -1] == matrix.truth
    assert final.mean() - right.mean() <= policy.losses(matrix).mean() + 1e-12


@pytest.mark.parametrize("losses", [0, 1, 7, 99, 100])
def test_the_bound_is_where_so_few_losses_have_the_rest_of_the_probability(losses):
    bound = upper_bound(losses, 100, 0.95)
    if losses == 100:
        assert bound == 1
    else:
        assert binom.cdf(losses, 100, bound) == pytest.approx(0.05)


def test_the_needed_samples_are_the_fewest():
    # 0.99 ** 299 is the first power below 0.05.
    assert samples_needed(0.01, 0.95) == 299
    for rate in (0.0, 0.003, 0.008):
        needed = samples_needed(0.01, 0.95, rate)
        assert upper_bound(int(np.ceil(rate * needed)), needed, 0.95) <= 0.01
        assert upper_bound(int(np.ceil(rate * (needed - 1))), needed - 1, 0.95) > 0.01
    assert samples_needed(0.01, 0.95, 0.01) is None
    assert samples_needed(0.01, 0.95, 0.0099999) is None


def test_testing_ends_at_the_first_failure():
    proof = POPULATION.part(np.arange(5000))
    strict, loose = PATH[0], PATH[-1]
    for path in ([strict, loose], [strict, loose, strict]):
        found = certify(path, proof, max_drop=DROP, confidence=CONFIDENCE)
        assert found.thresholds == strict.thresholds
    with pytest.raises(NotCertified):
        certify([loose, strict], proof, max_drop=DROP, confidence=CONFIDENCE)


def test_a_certificate_states_its_samples():
    proof = POPULATION.part(np.arange(5000))
    found = certify(PATH[:1], proof, max_drop=DROP, confidence=CONFIDENCE).certificate
    losses = int(LOSING[:5000, 0].sum())
    assert (found.samples, found.losses, found.has_labels) == (5000, losses, True)
    assert found.bound == upper_bound(losses, 5000, CONFIDENCE) < DROP
    assert found.data_hash == proof.data_hash()


def test_a_refusal_names_the_needed_samples():
    proof = POPULATION.part(np.arange(60))
    with pytest.raises(NotCertified, match=r"got 60 samples, of which 0 lose .* 299 without any"):
        certify(PATH[:1], proof, max_drop=0.01, confidence=0.95)
    loose = Policy(score="max_prob", thresholds=(0.0, None, None))
    with pytest.raises(NotCertified, match="no number of samples is enough") as refusal:
        certify([loose], proof, max_drop=0.01, confidence=0.95)
    assert refusal.value.samples_without_losses == 299
    assert refusal.value.samples_at_rate is None


@pytest.mark.parametrize("value", [0, 1, -0.1, np.nan, 5])
@pytest.mark.parametrize("name", ["max_drop", "confidence"])
def test_an_impossible_promise_is_named(name, value):
    promise = {"max_drop": DROP, "confidence": CONFIDENCE, name: value}
    with pytest.raises(PolicyError, match="expected a number between 0 and 1"):
        certify(PATH, POPULATION, **promise)
