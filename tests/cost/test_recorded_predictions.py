"""The shipped model predicts what it predicted when it was trained: no change of the code may move its answers."""

import json
from pathlib import Path

import pytest

from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost.learned import LearnedCost, LearnedModel
from layoutsel.cost.model import BoundaryPart, Question
from layoutsel.cost.readable import read_workload
from layoutsel.cost.samples import MachineProfile
from layoutsel.documents import from_json
from tvm_passes.decision import Decision

RECORDED = json.loads(Path(__file__).with_name("recorded_predictions.json").read_text())
"""Answers of the shipped model for candidates of its training data, of all units, and for boundaries."""


@pytest.fixture(scope="module")
def models():
    model = LearnedModel.load()
    return {
        name: LearnedCost(model, MachineProfile.read(text))
        for name, text in RECORDED["profiles"].items()
    }


def same(costs, lines):
    for cost, line in zip(costs, lines, strict=True):
        assert cost.us == pytest.approx(line["us"], rel=1e-9)
        assert cost.spread_us == pytest.approx(line["spread_us"], rel=1e-9)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", RECORDED["profiles"])
def test_subgraphs(models, name, together):
    lines = [line for line in RECORDED["subgraphs"] if line["profile"] == name]
    questions = [
        Question(read_workload(line["workload"]), Decision.parse(line["decision"]))
        for line in lines
    ]
    model = models[name]
    costs = (
        model.subgraphs(questions)
        if together
        else [model.subgraph(q.workload, q.decision) for q in questions]
    )
    same(costs, lines)
    assert {cost.source for cost in costs} == {"learned"}


@pytest.mark.parametrize("name", RECORDED["profiles"])
def test_boundaries(models, name):
    lines = [line for line in RECORDED["boundaries"] if line["profile"] == name]
    steps = [
        BoundaryPart(
            line["kind"],
            from_json(BoundaryTensor, line["tensor"]),
            line["source"],
            line["destination"],
        )
        for line in lines
    ]
    same(models[name].steps(steps), lines)
