"""The answer of a request against the sure answers of whole observations."""

from __future__ import annotations

import math

import numpy as np
from exit_models import policy_of
from hypothesis import given
from hypothesis import strategies as st

from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.verdict import AnswerRule, Verdict

SCORES = st.sampled_from([0.1, 0.5, 0.9, math.nan])
THRESHOLDS = st.sampled_from([None, 0.0, 0.5, 0.9, 1.0])


@st.composite
def requests(draw):
    """A policy, the results of one sample, and an order in which they arrive."""
    exits = draw(st.integers(2, 5))
    patience = draw(st.none() | st.integers(1, 3))
    thresholds = draw(st.lists(THRESHOLDS, min_size=exits - 1, max_size=exits - 1))
    scores = draw(st.lists(SCORES, min_size=exits, max_size=exits))
    labels = draw(st.lists(st.integers(0, 1), min_size=exits, max_size=exits))
    order = draw(st.permutations(range(exits)))
    return policy_of(*thresholds, patience=patience), scores, labels, order


def sure_by_policy(policy, scores, labels) -> list[bool]:
    names = tuple(f"exit{index}" for index in range(len(scores)))
    matrix = ExitMatrix(
        exits=names,
        score=policy.score,
        scores=np.array([scores], np.float64),
        predictions=np.array([labels], np.int64),
    )
    return [*map(bool, policy.sure(matrix)[0]), True]


@given(requests())
def test_ordered_is_the_shallowest_sure_exit_in_any_order_of_arrival(request):
    policy, scores, labels, order = request
    sure = sure_by_policy(policy, scores, labels)
    verdict = Verdict(AnswerRule(policy=policy, answer="ordered"), range(len(scores)))
    arrived = set()
    for exit_ in order:
        answer, bound = verdict.answer, verdict.bound
        verdict.arrive(exit_, scores[exit_], labels[exit_])
        arrived.add(exit_)
        assert verdict.bound <= bound
        assert answer in (None, verdict.answer)
        is_known = set(range(sure.index(True) + 1)) <= arrived
        assert (verdict.answer is not None) == is_known
        assert sure.index(True) <= verdict.bound
    assert verdict.answer == sure.index(True)
    assert verdict.is_complete
    # NaN of an exit that nobody waited for is seen as well.
    assert verdict.has_nan == any(map(math.isnan, scores))


@given(requests())
def test_first_is_the_first_sure_exit_that_arrives(request):
    policy, scores, labels, order = request
    sure = sure_by_policy(policy, scores, labels)
    verdict = Verdict(AnswerRule(policy=policy, answer="first"), range(len(scores)))
    earlier = []
    for exit_ in order:
        verdict.arrive(exit_, scores[exit_], labels[exit_])
        if verdict.answer is not None:
            break
        earlier.append(exit_)
    assert sure[verdict.answer]
    if policy.patience is None:
        assert verdict.answer == exit_
        assert not any(sure[one] for one in earlier)


class TestSettling:
    def verdict(self, *thresholds, answer="first"):
        rule = AnswerRule(policy=policy_of(*thresholds), answer=answer)
        return Verdict(rule, range(len(thresholds) + 1))

    def test_the_largest_score_answers(self):
        verdict = self.verdict(1.0, 1.0, 1.0)
        for exit_, score in enumerate((0.3, 0.6, math.nan)):
            verdict.arrive(exit_, score, exit_)
        assert verdict.settle()
        assert (verdict.answer, verdict.is_settled) == (1, True)
        verdict.arrive(3, 1.0, 3)
        assert verdict.answer == 1

    def test_a_sure_exit_that_waits_for_earlier_ones_comes_first(self):
        verdict = self.verdict(1.0, 1.0, 0.2, answer="ordered")
        verdict.arrive(1, 0.9, 1)
        verdict.arrive(2, 0.3, 2)
        assert verdict.answer is None
        assert verdict.settle()
        assert verdict.answer == 2

    def test_the_end_of_the_trunk_comes_first(self):
        verdict = self.verdict(1.0, answer="ordered")
        verdict.arrive(1, 0.1, 1)
        assert verdict.settle()
        assert verdict.answer == 1

    def test_nothing_has_arrived(self):
        verdict = self.verdict(0.0, 0.0)
        assert not verdict.settle()
        verdict.arrive(0, math.nan, 0)
        assert not verdict.settle()
        assert (verdict.answer, verdict.is_settled) == (None, False)
