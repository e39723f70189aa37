"""Many questions at once: equal answers, and few calls of the boosters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from learning import convolution, profile, workloads
from test_measured import Guess

from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost import features
from layoutsel.cost.learned import Boosters, LearnedCost, LearnedModel
from layoutsel.cost.measured import MeasuredCost
from layoutsel.cost.model import BoundaryQuestion, Question
from layoutsel.cost.place import Place
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.store import Context, Store
from layoutsel.device.outcome import Timing
from tvm_passes.decision import Decision

DECISIONS = tuple(
    Decision.parse(text)
    for text in (
        "cpu:NHWC",
        "cpu:NCHW16c",
        "onednn:NHWC",
        "amx:NHWC:bf16",
        "toy:NHWC",
        "cpu:NCHW:int8",
    )
)


class CountingBooster:
    """A booster that notes how many rows each call had."""

    def __init__(self, booster, rows):
        self.booster, self.rows = booster, rows

    def inplace_predict(self, data, **options):
        self.rows.append(len(data))
        return self.booster.inplace_predict(data, **options)


@pytest.fixture(scope="module")
def shipped():
    return LearnedModel.load()


@pytest.fixture
def counted(shipped):
    """The shipped model, and the numbers of rows of all calls of its boosters."""
    rows = []
    parts = {name: Boosters(part.point, part.quantiles) for name, part in shipped.parts.items()}
    for name, part in parts.items():
        # Instead of loading the boosters again, which takes a second.
        part.__dict__["boosters"] = tuple(
            CountingBooster(booster, rows) for booster in shipped.parts[name].boosters
        )
    return LearnedCost(replace(shipped, parts=parts), profile()), rows


def questions(count):
    return [Question(work, decision) for work in workloads(count) for decision in DECISIONS]


def test_each_booster_is_called_once_for_ten_thousand_candidates(counted):
    cost, rows = counted
    asked = (28 * questions(60))[:10_000]
    assert len(asked) == 10_000
    answers = cost.subgraphs(asked)
    assert len(answers) == len(asked)
    shares = sorted(
        sum(
            question.decision.unit == unit
            for question in asked
            if question.decision.precision != "int8"
        )
        for unit in ("cpu", "onednn", "amx")
    )
    assert sorted(rows) == sorted(2 * shares)


def test_a_batch_answers_as_single_questions_do(shipped):
    cost = LearnedCost(shipped, profile())
    asked = questions(8)
    for question, answer in zip(asked, cost.subgraphs(asked), strict=True):
        alone = cost.subgraph(question.workload, question.decision)
        assert alone.us == pytest.approx(answer.us, rel=1e-9)
        assert alone.spread_us == pytest.approx(answer.spread_us, rel=1e-9)
        assert alone.source == answer.source


def test_no_questions_no_answers(counted, tmp_path):
    cost, rows = counted
    assert cost.subgraphs([]) == cost.boundaries([]) == []
    assert rows == []
    assert features.feature_table([])[0].shape == (0, len(features.NAMES))


def test_boundaries_are_one_call_and_sums_of_their_steps(counted):
    cost, rows = counted
    tensor = BoundaryTensor(shape=(1, 64, 28, 28), dtype="float32", bytes=4 * 64 * 28 * 28)
    here, there = Place("NCHW", "cpu"), Place("NHWC", "onednn")
    only_layout, only_unit = Place("NHWC", "cpu"), Place("NCHW", "onednn")
    ends = (there, only_layout, only_unit, here)
    both, layout, unit, same = cost.boundaries(
        [BoundaryQuestion(tensor, here, end) for end in ends]
    )
    assert rows == [4, 4]
    assert both.us == pytest.approx(layout.us + unit.us)
    assert both.spread_us == pytest.approx(layout.spread_us + unit.spread_us)
    assert (layout.source, unit.source) == ("learned", "learned")
    assert (same.us, same.spread_us, same.bytes_moved.value) == (0.0, 0.0, 0.0)
    assert both.bytes_moved.value == 2 * layout.bytes_moved.value == 4 * tensor.bytes


def test_measured_costs_ask_the_estimate_once_for_what_the_store_lacks(tmp_path):
    with Store(Context(machine="m", versions={}, threads=2), tmp_path / "m.sqlite") as store:
        works = workloads(4)
        store.put(works[1].key, DECISIONS[0], Timing(us=5, spread_us=1, runs=3), "nn.conv2d")
        guess = Guess()
        model = MeasuredCost(store, guess)
        answers = model.subgraphs([Question(work, DECISIONS[0]) for work in works])
        assert [cost.us for cost in answers] == [111, 5, 111, 111]
        assert guess.calls == 1


def test_features_of_one_are_its_row_in_a_table():
    here = profile()
    asked = [
        features.PricingQuestion(work, decision, here)
        for work in workloads(5)
        for decision in DECISIONS
    ]
    rows, margins = features.feature_table(asked)
    for one, row, margin in zip(asked, rows, margins, strict=True):
        assert np.array_equal(features.features(one), row)
        us = RooflineCost.of(here).estimate(one.workload, one.decision).us
        assert margin == np.float32(np.log(us))


def test_a_table_may_hold_several_machines():
    work, decision = convolution(64, 64, 28), DECISIONS[0]
    asked = [features.PricingQuestion(work, decision, profile(cores=cores)) for cores in (1, 2)]
    column = features.NAMES.index("threads")
    assert features.feature_table(asked)[0][:, column].tolist() == [1.0, 2.0]
