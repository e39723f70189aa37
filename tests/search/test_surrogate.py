"""Surrogate of accuracy: exact derivatives and posterior, and groups that say nothing are ignored."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from layoutsel.search.surrogate import (
    FeatureGroup,
    GaussianProcess,
    distances,
    to_accuracy,
    to_value,
)


def groups_of(count, seed=0):
    random = np.random.default_rng(seed)
    return (
        FeatureGroup(name="x", values=random.normal(size=(count, 2))),
        FeatureGroup(name="c", values=random.integers(0, 3, (count, 4)), is_category=True),
        FeatureGroup(name="noise", values=random.normal(size=(count, 3))),
    )


def values_of(groups):
    x, c, _ = groups
    return np.sin(x.values[:, 0]) + 0.5 * (c.values[:, 0] == 1)


def test_values_and_accuracies_are_each_others_inverse():
    accuracy = np.array([0.0, 0.1, 0.73, 0.99, 1.0])
    np.testing.assert_allclose(to_accuracy(to_value(accuracy)), accuracy, atol=1e-12)
    assert (np.diff(to_value(accuracy)) > 0).all()


def test_distances_are_squares_and_shares_of_categories():
    groups = groups_of(5)
    found = distances(groups, [group[:2] for group in groups])
    x, c, _ = groups
    assert found.shape == (3, 5, 2)
    np.testing.assert_allclose(found[0, 3, 1], ((x.values[3] - x.values[1]) ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(found[1, 3, 1], (c.values[3] != c.values[1]).mean())
    assert (found[:, [0, 1], [0, 1]] < 1e-5).all()


def test_the_gradient_is_that_of_finite_differences():
    groups = groups_of(15)
    process = GaussianProcess(3)
    within = distances(groups, groups).astype(float)
    y = values_of(groups)
    y = (y - y.mean()) / y.std()
    at = np.array([0.3, -0.5, -1.0, 0.2, -3.0])
    _, gradient = process._loss(at, within, y)
    numeric = approx_fprime(at, lambda p: process._loss(p, within, y)[0], 1e-6)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-4)


def test_the_posterior_is_the_conditional_distribution():
    groups = groups_of(12)
    known, others = slice(0, 8), slice(8, 12)
    process = GaussianProcess(3)
    process.parameters = np.array([0.0, -1.0, -2.0, 0.5, -4.0])
    some = [group[known] for group in groups]
    values = values_of(groups)[known]
    process.condition(distances(some, some), values)
    mean, deviation = process.predict(distances(some, [group[others] for group in groups]))
    weights, variance, noise = np.exp([0.0, -1.0, -2.0]), np.exp(0.5), np.exp(-4.0)
    whole = variance * np.exp(-np.tensordot(weights, distances(groups, groups).astype(float), 1))
    own = whole[:8, :8] + noise * np.eye(8)
    gain = np.linalg.solve(own, whole[:8, 8:]).T
    scale = values.std()
    np.testing.assert_allclose(
        mean, values.mean() + gain @ (values - values.mean()), rtol=1e-3, atol=1e-4
    )
    expected = np.diag(whole[8:, 8:] - gain @ whole[:8, 8:])
    np.testing.assert_allclose(deviation, scale * np.sqrt(expected), rtol=1e-3)


def test_parameters_find_the_groups_that_matter():
    groups = groups_of(60)
    within, values = distances(groups, groups), values_of(groups)
    process = GaussianProcess(3)
    before = process._loss(process.parameters, within.astype(float), values)[0]
    process.tune(within, values)
    assert process._loss(process.parameters, within.astype(float), values)[0] < before
    x, c, noise = process.parameters[:3]
    assert min(x, c) > noise + 1


def test_predictions_are_better_than_the_mean_and_know_their_error():
    groups = groups_of(300, seed=3)
    values = values_of(groups) + np.random.default_rng(4).normal(0, 0.05, 300)
    known = [group[:80] for group in groups]
    process = GaussianProcess(3)
    within = distances(known, known)
    process.tune(within, values[:80])
    process.condition(within, values[:80])
    mean, deviation = process.predict(distances(known, [group[80:] for group in groups]))
    error = mean - values[80:]
    assert error.std() < 0.4 * values.std()
    assert 0.85 < np.mean(np.abs(error) < 2 * np.hypot(deviation, 0.05)) <= 1.0


def test_equal_values_are_no_obstacle():
    groups = groups_of(6)
    within = distances(groups, groups)
    process = GaussianProcess(3)
    process.tune(within, np.ones(6))
    process.condition(within, np.ones(6))
    mean, deviation = process.predict(within)
    assert mean == pytest.approx(np.ones(6))
    assert (deviation >= 0).all()
