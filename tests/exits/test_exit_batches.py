"""Batches against single answers: any sure exits, any number of requests, and those that leave."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from exit_models import batches, check, compiled, expected, images, in_batches, network, policy_of
from exit_networks import NETWORKS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layoutsel.errors import Cancelled, DeadlineMissed, InputError, NoBatches
from layoutsel.exits.batch_segments import check_rows, stages_as
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.server_statistics import ServerRecord
from layoutsel.exits.waiting import WaitingRequest
from layoutsel.runtime.samples import rel_l2_err

SURE, UNSURE = 0.0, 1.0


class Asked(WaitingRequest):
    """A request that keeps its result, and leaves after a number of looks."""

    __slots__ = ("looks", "results")

    def __init__(self, x, deadline_s=math.inf, looks=100):
        super().__init__(x, time.perf_counter(), deadline_s, ServerRecord())
        self.results, self.looks = [], looks

    @property
    def is_wanted(self):
        self.looks -= 1
        return self.looks >= 0

    def _end(self, result):
        self.results.append(result)

    @property
    def result(self):
        (one,) = self.results
        return one


def same(found, wanted):
    assert (found.exit, found.label, found.cancelled) == (
        wanted.exit,
        wanted.label,
        wanted.cancelled,
    )
    assert found.score == pytest.approx(wanted.score, abs=1e-5)
    assert found.scores.shape == wanted.scores.shape
    assert found.scores.dtype == wanted.scores.dtype
    assert rel_l2_err(found.scores, wanted.scores) <= 1e-5


@pytest.mark.parametrize("name", NETWORKS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_patterns_of_sure_exits_have_the_answers_of_single_requests(name, data):
    """Thresholds between the scores of the samples make about half of them sure of each exit."""
    early = len(network(name).names) - 1
    inputs = images(name, 4, seed=data.draw(st.integers(0, 5)))
    scores = [[expected(name, x)[e][1] for x in inputs] for e in range(early)]
    levels = [
        data.draw(st.sampled_from([None, SURE, UNSURE, *(s + 1e-4 for s in scores[e])]))
        for e in range(early)
    ]
    workers = "a" + "".join(data.draw(st.sampled_from("a-")) for _ in range(early))
    if name in ("cascade", "multi_scale", "stacked"):  # others read its branch
        workers = "a" * (early + 1)
    patience = data.draw(st.sampled_from([None, None, 1, 2]))
    policy = policy_of(*levels, patience=patience)
    with in_batches(name, policy, workers) as model:
        wanted = [model(x) for x in inputs]
        for count in data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=3)):
            order = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
            gone = data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
            asked = [Asked(inputs[n], looks=g or 100) for n, g in zip(order, gone, strict=True)]
            model.answer_all(asked)
            for n, one in zip(order, asked, strict=True):
                if isinstance(one.result, ExitAnswer):
                    same(one.result, wanted[n])
                else:
                    assert isinstance(one.result, Cancelled)
                    assert one.looks < 0


def test_rows_of_padding_do_not_reach_a_result():
    """The rows of earlier samples, which are not numbers, stay in the padding of later batches."""
    one, other = images("chain", 2)
    with in_batches("chain", policy_of(UNSURE, UNSURE)) as model:
        model.answer_all([Asked(np.full_like(one, np.nan)) for _ in range(4)])
        asked = [Asked(one), Asked(other), Asked(one)]
        model.answer_all(asked)
        for x, found in zip((one, other, one), asked, strict=True):
            check(found.result, model.exits, expected("chain", x))


def test_samples_leave_and_the_rest_closes_ranks(slow):
    """Sizes that run: four samples of which three are sure at the first exit, and one never."""
    inputs = images("chain", 4)
    scores = sorted(expected("chain", x)[0][1] for x in inputs)
    policy = policy_of((scores[0] + scores[1]) / 2, UNSURE)
    seen = []
    with in_batches("chain", policy) as model:
        found = model.batches(model.arrangement)
        advance = found._advance
        found._advance = lambda rule, size, *rest: seen.append(size) or advance(rule, size, *rest)
        asked = [Asked(x) for x in inputs]
        model.answer_all(asked)
    assert seen == [4, 1, 1]
    assert sorted(one.result.exit for one in asked) == ["exit1"] * 3 + ["final"]
    for x, one in zip(inputs, asked, strict=True):
        check(one.result, model.exits, expected("chain", x))


def test_answers_come_at_their_exit(slow):
    """The last stage of the trunk finds the sure samples answered already."""
    inputs = images("chain", 4)
    scores = sorted(expected("chain", x)[0][1] for x in inputs)
    asked: list[Asked] = []
    done: list[int] = []
    slow(lambda stage: done.append(sum(map(bool, (one.results for one in asked)))))
    with in_batches("chain", policy_of((scores[1] + scores[2]) / 2, UNSURE)) as model:
        model.prepare_batches()
        done.clear()
        asked += [Asked(x) for x in inputs]
        model.answer_all(asked)
    assert done == [0, 2, 2]


def test_the_best_result_at_a_deadline(slow):
    is_armed = False
    slow(lambda stage: time.sleep(0.3) if is_armed and stage.startswith("trunk1") else None)
    one, other = images("chain", 2)
    with in_batches("chain", policy_of(UNSURE, UNSURE)) as model:
        model.prepare_batches()
        is_armed = True
        soon = Asked(one, deadline_s=time.perf_counter() + 0.2)
        late = Asked(one, deadline_s=time.perf_counter() - 1)
        never = Asked(other)
        model.answer_all([soon, late, never])
    assert soon.result.at_deadline
    assert soon.result.exit == "exit1" or soon.result.score > expected("chain", one)[0][1]
    check(soon.result, model.exits, expected("chain", one))
    assert isinstance(late.result, DeadlineMissed)
    assert never.result.exit == "final"
    check(never.result, model.exits, expected("chain", other))


def test_wrong_inputs_fail_alone():
    one, other = images("chain", 2)
    with in_batches("chain", policy_of(SURE, SURE)) as model:
        asked = [Asked(one), Asked(one[..., 0]), Asked({"x": other}), Asked(other[:, ::-1])]
        model.answer_all(asked)
        assert isinstance(asked[1].result, InputError)
        beside = [Asked(one), Asked(None), Asked([[[1.0], [1.0, 2.0]]])]
        model.answer_all(beside)
        check(beside[0].result, model.exits, expected("chain", one))
        assert isinstance(beside[1].result, TypeError)
        assert isinstance(beside[2].result, ValueError)
        for x, found in zip((one, other, other[:, ::-1]), (asked[0], *asked[2:]), strict=True):
            check(found.result, model.exits, expected("chain", x))


def test_a_failing_stage_fails_those_that_are_left(slow):
    inputs = images("chain", 4)
    scores = sorted(expected("chain", x)[0][1] for x in inputs)

    def fail(stage):
        if is_armed and stage.startswith("trunk1"):
            raise OSError("no memory")

    is_armed = False
    slow(fail)
    with in_batches("chain", policy_of((scores[1] + scores[2]) / 2, UNSURE)) as model:
        model.prepare_batches()
        is_armed = True
        asked = [Asked(x) for x in inputs]
        model.answer_all(asked)
        assert sorted(type(one.result).__name__ for one in asked) == [
            *["ExitAnswer"] * 2,
            *["OSError"] * 2,
        ]


def test_an_interrupt_is_raised_on_its_thread(slow):
    def interrupt(_stage):
        if is_armed:
            raise KeyboardInterrupt

    is_armed = False
    slow(interrupt)
    with in_batches("chain", policy_of(UNSURE, UNSURE)) as model:
        model.prepare_batches()
        is_armed = True
        asked = [Asked(x) for x in images("chain", 2)]
        with pytest.raises(KeyboardInterrupt):
            model.answer_all(asked)
        assert all(isinstance(one.result, KeyboardInterrupt) for one in asked)


def test_scores_that_are_no_numbers_are_unsure(caplog):
    one, other = images("chain", 2)
    with in_batches("chain", policy_of(SURE, SURE)) as model:
        asked = [Asked(np.full_like(one, np.nan)), Asked(other)]
        model.answer_all(asked)
        assert [found.result.exit for found in asked] == ["final", "exit1"]
        assert "not a number" in caplog.text


def test_several_workers_have_no_batches():
    with in_batches("chain", policy_of(SURE, SURE), "abb") as model:
        assert model.prepare_batches() == 1
        asked = [Asked(x) for x in images("chain", 3)]
        model.answer_all(asked)
        for x, found in zip(images("chain", 3), asked, strict=True):
            check(found.result, model.exits, expected("chain", x))


def test_stages_of_another_batch_size_are_declined():
    stages = stages_as(compiled("chain"), batches("chain")[2])
    check_rows(compiled("chain").stages, stages, (1, 2))
    with pytest.raises(NoBatches, match=r"for 4 samples, and float32 .* for 1; expected equal"):
        check_rows(compiled("chain").stages, stages, (1, 4))
    with pytest.raises(NoBatches, match=r"expected those for 1, trunk0"):
        check_rows(compiled("chain").stages, batches("residual")[2].stages, (1, 2))
