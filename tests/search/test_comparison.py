"""Statistics of repeated searches: exact where they claim to be."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from layoutsel.search import comparison
from layoutsel.search.comparison import compare, holm, mean_interval, paired_permutation


def test_eight_equal_signs_are_as_rare_as_can_be():
    assert paired_permutation([0.1, 0.2, 0.3, 0.1, 0.2, 0.1, 0.4, 0.1]) == 2 / 2**8
    assert paired_permutation([0.0, 0.0]) == 1.0


@given(values=st.lists(st.integers(-9, 9), min_size=2, max_size=8))
def test_small_tests_agree_with_scipy(values):
    if not any(values):
        return
    expected = stats.permutation_test(
        (np.array(values, dtype=float),), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    # SciPy's two-sided value is twice the smaller tail.
    assert paired_permutation(values) == pytest.approx(min(expected.pvalue, 1.0))


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_convolution_and_enumeration_agree(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0.3, 1, 12)
    exact = paired_permutation(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "_ENUMERATED", 0)
        rounded = paired_permutation(values)
    assert exact <= rounded + 1e-12
    assert rounded == pytest.approx(exact, abs=2e-3)


def test_more_pairs_than_can_be_enumerated():
    assert paired_permutation(np.full(60, 0.1)) == pytest.approx(2 / 2**60, rel=1e-6)
    noise = np.random.default_rng(0).normal(0, 1, 120)
    assert 0.05 < paired_permutation(noise - noise.mean() + 0.05) <= 1.0


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = [
        low <= 0 <= high
        for low, high in (mean_interval(rng.normal(0, 1, 30), i, draws=500) for i in range(300))
    ]
    assert 0.9 < np.mean(hits) < 0.98


def test_holm_multiplies_the_smallest_by_the_number_of_tests():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def test_methods_are_compared_pair_by_pair():
    found = compare([3.0, 4.0, 5.0, 6.0], [1.0, 3.0, 5.0, 5.0])
    assert found.mean == 1.0
    assert found.wins == 0.875
    signs = itertools.product((-1, 1), repeat=3)
    assert found.p == np.mean([abs(2 * a + b + c) >= 4 for a, b, c in signs])
    assert found.low <= 1.0 <= found.high
