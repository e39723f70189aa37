"""Thresholds against brute force over all of them, and the limits of the search."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from layoutsel.exits import threshold_search, thresholds
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.pattern_times import even, never_slower, sequential, time_table
from layoutsel.exits.policy import Policy, PolicyError
from layoutsel.exits.thresholds import fastest
from tests.exits.drawn import drawn

SAME = 1e-9


@st.composite
def matrices(draw, most_early, most_samples=12):
    """Few samples with tied scores, NaN scores, and labels or none."""
    early = draw(st.integers(1, most_early))
    samples = draw(st.integers(1, most_samples))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = random.choice([0.0, 0.25, 0.5, 0.75, 1.0, np.nan], (samples, early + 1))
    predictions = random.choice(3, (samples, early + 1), p=[0.7, 0.2, 0.1])
    labels = np.zeros(samples, np.int64) if draw(st.booleans()) else None
    return ExitMatrix(
        exits=tuple(f"e{i}" for i in range(early + 1)),
        score="margin",
        scores=scores,
        predictions=predictions,
        labels=labels,
    )


@st.composite
def tables(draw, early, monotone):
    """Times of all patterns; if monotone, one more sure exit never makes a request slower."""
    values = [draw(st.integers(0, 20)) for _ in range(1 << early)]
    if monotone:
        for code, bit in itertools.product(range(1 << early), range(early)):
            if code >> bit & 1:
                values[code] = min(values[code], values[code & ~(1 << bit)])
    return lambda sure: float(values[sum(one << i for i, one in enumerate(sure))])


def brute_force(matrix, most_losses, times, patience):
    """Least mean time over all thresholds at scores, 1, or none."""
    early = len(matrix.exits) - 1
    options = []
    for i in range(early):
        known = matrix.scores[:, i][~np.isnan(matrix.scores[:, i])]
        options.append([None, *sorted({*known.tolist(), 1.0})])
    best = np.inf
    for chosen in itertools.product(*options):
        policy = Policy(score="margin", thresholds=(*chosen, None), patience=patience)
        if policy.losses(matrix).sum() <= most_losses:
            patterns = policy.sure(matrix).tolist()
            best = min(best, np.mean([times(tuple(one)) for one in patterns]))
    return best


@settings(max_examples=examples(200), deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("monotone", [True, False])
def test_the_time_is_the_least_of_all_thresholds(monotone, data):
    matrix = data.draw(matrices(3))
    times = data.draw(tables(len(matrix.exits) - 1, monotone))
    most_losses = data.draw(st.integers(0, 3))
    patience = data.draw(st.sampled_from([None, None, 1, 2, 3]))
    found = fastest(matrix, most_losses, times, patience=patience)
    patterns = found.policy.sure(matrix).tolist()
    assert found.exact
    assert found.losses == found.policy.losses(matrix).sum() <= most_losses
    assert found.time == pytest.approx(np.mean([times(tuple(one)) for one in patterns]))
    assert found.time == pytest.approx(brute_force(matrix, most_losses, times, patience), abs=SAME)


def test_descent_is_close_to_the_best_of_four_exits():
    """Mean excess over brute force, and the share of cases where descent finds the best."""
    excess = []
    for seed in range(examples(40)):
        matrix = drawn(seed, 60, 4, digits=1)
        found = fastest(matrix, 2, even(5))
        grid = [
            [None, *np.unique(matrix.scores[:, i][matrix.scores[:, i] > 0.5])] for i in range(4)
        ]
        assert not found.exact
        assert found.losses <= 2
        best = found.time
        for chosen in itertools.product(*grid):
            policy = Policy(score="max_prob", thresholds=(*chosen, None))
            if policy.losses(matrix).sum() <= 2:
                sure = policy.sure(matrix)
                first = np.where(sure.any(axis=1), sure.argmax(axis=1), 4)
                best = min(best, float((first + 1).mean() / 5))
        excess.append(found.time / best - 1)
    assert np.mean(np.array(excess) < SAME) >= 0.9
    assert max(excess) < 0.02


def test_descent_agrees_with_the_exact_search(monkeypatch):
    matrices_ = [drawn(seed, 400, 3) for seed in range(examples(12))]
    best = [fastest(matrix, 6, even(4)).time for matrix in matrices_]
    monkeypatch.setattr(thresholds, "MOST_EXACT", 2)
    found = [fastest(matrix, 6, even(4)) for matrix in matrices_]
    assert not any(one.exact for one in found)
    excess = np.array([one.time for one in found]) / best - 1
    assert (excess > -SAME).all()
    assert excess.max() < 0.01


@pytest.mark.parametrize("patience", [None, 2])
def test_three_exits_of_five_thousand_samples_take_seconds(patience):
    matrix = drawn(1, 5000, 3)
    began = time.process_time()
    found = fastest(matrix, 50, even(4), patience=patience)
    assert found.exact
    assert time.process_time() - began < 2
    # Any single exit that moves to its next looser score loses too much, or gains nothing.
    assert found.losses <= 50
    for i, threshold in enumerate(found.policy.thresholds[:-1]):
        if threshold is None:
            continue
        looser = matrix.scores[:, i][matrix.scores[:, i] < threshold].max()
        changed = list(found.policy.thresholds)
        changed[i] = float(looser)
        policy = Policy(score=matrix.score, thresholds=tuple(changed), patience=patience)
        sure = policy.sure(matrix)
        first = np.where(sure.any(axis=1), sure.argmax(axis=1), 3)
        assert policy.losses(matrix).sum() > 50 or (first + 1).mean() / 4 >= found.time - SAME


def test_beyond_its_limits_the_search_is_not_exact_and_still_keeps_the_losses(monkeypatch):
    monkeypatch.setattr(threshold_search, "MOST_OPERATIONS", 1000)
    matrix = drawn(2, 2000, 3)
    found = fastest(matrix, 20, even(4))
    assert not found.exact
    assert found.losses <= 20
    assert found.time < 1


def test_thresholds_lie_between_scores():
    matrix = ExitMatrix(
        exits=("a", "final"),
        score="margin",
        scores=np.array([[0.5, 0], [0.75, 0], [1.0, 0], [1.0, 0]]),
        predictions=np.array([[1, 0], [0, 0], [0, 0], [0, 0]]),
    )
    assert fastest(matrix, 0, even(2)).policy.thresholds == (0.625, None)
    assert fastest(matrix, 1, even(2)).policy.thresholds == (0.5, None)


def test_exits_without_a_useful_threshold_are_off():
    scores = np.array([[np.nan, 0.5, 0], [np.nan, 0.5, 0]])
    matrix = ExitMatrix(
        exits=("a", "b", "final"),
        score="margin",
        scores=scores,
        predictions=np.array([[0, 1, 0], [0, 0, 0]]),
    )
    # The first has no score, and the second is as sure when it is wrong.
    found = fastest(matrix, 0, even(3))
    assert found.policy.thresholds == (None, None, None)
    assert (found.time, found.losses, found.policy.useful) == (1.0, 0, False)


def test_sequential_times_are_those_of_the_first_sure_exit():
    times = sequential([1, 4, 9])
    assert [times(sure) for sure in itertools.product([True, False], repeat=2)] == [1, 1, 4, 9]
    assert never_slower(time_table(times, 2)) == [True, True]
    assert never_slower(time_table(lambda sure: 2.0 + sure[0] - sure[1], 2)) == [False, True]


@pytest.mark.parametrize("work", [[], [0, 1], [2, 1], [1, np.inf], [np.nan, 1]])
def test_impossible_work_is_named(work):
    with pytest.raises(PolicyError, match=r"work up to the exits: got .*; expected positive"):
        sequential(work)


def test_impossible_times_and_too_many_exits_are_named():
    with pytest.raises(PolicyError, match=r"pattern \(False, True\): got nan"):
        time_table(lambda sure: np.nan if sure[1] else 1.0, 2)
    with pytest.raises(PolicyError, match=r"got 17 exits .* at most 16"):
        time_table(even(18), 17)
