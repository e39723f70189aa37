"""Patterns of sure exits of policies on observed samples."""

import numpy as np
import pytest

from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.patterns import (
    SurePattern,
    pattern_table,
    patterns_of,
)
from layoutsel.exits.policy import Policy

MATRIX = ExitMatrix(
    exits=("a", "b", "final"),
    score="max_prob",
    scores=np.array([[0.9, 0.5, 0.1], [0.2, 0.95, 0.3], [np.nan, 0.8, 0.9], [0.9, 0.5, 0.1]]),
    predictions=np.array([[1, 1, 1], [0, 2, 2], [3, 3, 3], [1, 0, 0]]),
)


def test_patterns_are_counted_and_read_back():
    sure = Policy(score="max_prob", thresholds=(0.9, 0.8, None)).sure(MATRIX)
    patterns = patterns_of(np.concatenate([sure, sure[:1]]))
    assert patterns == (SurePattern(exits=(0,), samples=3), SurePattern(exits=(1,), samples=2))
    table, samples = pattern_table(patterns, 3)
    assert table.tolist() == [[True, False, True], [False, True, True], [False, False, True]]
    assert samples.tolist() == [3, 2, 0]


@pytest.mark.parametrize("thresholds", [(None, None, None), (1.0, 1.0, None)])
def test_a_policy_that_is_never_sure_has_one_pattern(thresholds):
    sure = Policy(score="max_prob", thresholds=thresholds).sure(MATRIX)
    assert patterns_of(sure) == (SurePattern(exits=(), samples=4),)


def test_no_samples_stand_for_requests_without_a_sure_exit():
    assert patterns_of(np.zeros((0, 2), bool)) == ()
    table, samples = pattern_table((), 3)
    assert table.tolist() == [[False, False, True]]
    assert samples.tolist() == [1]
