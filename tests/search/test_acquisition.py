"""Gains of volume: equal to differences of hypervolumes, and their expectation to that of many draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layoutsel.search.acquisition import Staircase, expected_gain, expected_improvement
from layoutsel.search.dominance import hypervolume
from layoutsel.search.surrogate import to_accuracy, to_value

REFERENCE = (10.0, 0.1)
POINT = st.tuples(st.integers(0, 11), st.integers(0, 10))


@given(points=st.lists(POINT, max_size=12), one=POINT)
def test_the_gain_of_a_network_is_the_difference_of_volumes(points, one):
    us, accuracy = np.array(points, dtype=float).reshape(-1, 2).T
    accuracy = accuracy / 10
    stairs = Staircase(us, accuracy, REFERENCE)
    more_us, more = float(one[0]), one[1] / 10
    before = hypervolume(us, accuracy, REFERENCE)
    after = hypervolume(np.append(us, more_us), np.append(accuracy, more), REFERENCE)
    found = stairs.gain(np.array([more_us]), np.array([more]))
    assert found == pytest.approx([after - before], abs=1e-9)


def test_expected_gains_are_means_over_draws():
    us, accuracy = np.array([1.0, 4.0, 6.0]), np.array([0.3, 0.5, 0.6])
    stairs = Staircase(us, accuracy, REFERENCE)
    times = np.array([0.5, 3.0, 5.0, 9.0])
    mean, deviation = to_value(np.array([0.2, 0.5, 0.62, 0.4])), np.array([0.1, 0.2, 0.05, 0.3])
    random = np.random.default_rng(0)
    drawn = to_accuracy(mean[:, None] + deviation[:, None] * random.normal(size=(4, 20_000)))
    expected = stairs.gain(np.broadcast_to(times[:, None], drawn.shape), drawn).mean(axis=1)
    np.testing.assert_allclose(
        expected_gain(stairs, times, mean, deviation), expected, rtol=0.12, atol=0.005
    )
    best, within = np.array([0.3, 0.6]), times <= [[4.0], [9.0]]
    improved = sum(
        np.where(keeps, np.maximum(drawn - known, 0).mean(axis=1), 0.0)
        for known, keeps in zip(best, within, strict=True)
    )
    found = expected_improvement(best, within, mean, deviation)
    np.testing.assert_allclose(found, improved, rtol=0.12, atol=0.003)
