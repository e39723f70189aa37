"""Judging by data sets that are small, lopsided or of several machines."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from learning import boundaries, profile, samples
from test_evaluate import QUICK, recorded

from layoutsel.core.workload import Cost
from layoutsel.cost.place import HOST
from layoutsel.cost.samples import Dataset
from layoutsel.evaluation.evaluate import evaluate
from layoutsel.evaluation.holding_out import samples_of, samples_without, unit_data
from layoutsel.evaluation.metrics import metrics
from layoutsel.evaluation.regret import MeasuredBoundaries, recorded_problem
from tvm_passes.errors import LayoutselError

OTHER = profile(cores=1, isa=("avx", "avx2"))


def moved(found, machine, factor=1.0):
    return tuple(
        replace(s, us=factor * s.us, provenance=replace(s.provenance, profile=machine))
        for s in found
    )


def strict(document):
    return json.loads(json.dumps(document, allow_nan=False))


def test_one_model_leaves_nothing_to_learn_from():
    found = samples(4)
    dataset = Dataset(samples=found, boundaries=boundaries(), models=(recorded("a", found),))
    with pytest.raises(LayoutselError, match="learn"):
        evaluate(dataset, QUICK)


def test_no_boundaries_were_measured():
    found = samples(40)
    dataset = Dataset(samples=found, models=(recorded("a", found),))
    assert strict(evaluate(dataset, QUICK, stability_plans=1))["regret"]["cold"] >= 0


def test_a_unit_that_a_model_does_not_use():
    found, more = samples(40), samples(30, seed=2, unit="onednn")
    models = recorded("a", found), recorded("b", samples(30, seed=2), units=("onednn",))
    dataset = Dataset(samples=found + more, boundaries=boundaries(), models=models)
    document = strict(evaluate(dataset, QUICK, stability_plans=1))
    assert set(document["units"]) == {"cpu", "onednn"}
    assert set(document["models"]["a"]["units"]) == {"cpu"}
    assert set(document["models"]["b"]["units"]) == {"onednn"}


def test_a_unit_that_no_model_uses_is_not_judged():
    found, more = samples(40), samples(30, seed=2, unit="npu")
    dataset = Dataset(samples=found + more, boundaries=boundaries(), models=(recorded("a", found),))
    assert set(strict(evaluate(dataset, QUICK))["units"]) == {"cpu"}


def test_one_candidate_for_each_subgraph():
    """No rank among candidates, no best one, nothing to lose."""
    found = tuple(s for s in samples(60) if s.decision.layout == "NHWC")
    model = recorded("a", found, length=1)
    dataset = Dataset(samples=found, boundaries=boundaries(), models=(model,))
    document = strict(evaluate(dataset, QUICK))
    assert document["units"]["cpu"]["top1"] is None
    assert document["units"]["cpu"]["spearman"] is None
    assert document["regret"]["cold"] == document["regret"]["random"] == 0


def test_a_model_that_was_recorded_on_two_machines():
    """Each is judged by the times of its own machine."""
    here, there = samples(40), moved(samples(40), OTHER, 3.0)
    first = recorded("a", here)
    second = replace(first, machine=OTHER.name)
    dataset = Dataset(samples=here + there, boundaries=boundaries(), models=(first, second))
    document = strict(evaluate(dataset, QUICK))
    assert len(document["models"]) == 2
    assert document["units"]["cpu"]["samples"] == 2 * 4 * 3
    alone = {
        m.machine: evaluate(replace(dataset, models=(m,)), QUICK)["models"]["a"]
        for m in (first, second)
    }
    for name, found in document["models"].items():
        machine = next(m for m in alone if m in name)
        assert found["units"] == alone[machine]["units"]
        assert found["regret"]["random"] == alone[machine]["regret"]["random"]


def test_the_same_model_twice_counts_once():
    found = samples(40)
    model = recorded("a", found)
    dataset = Dataset(samples=found, boundaries=boundaries(), models=(model, model))
    assert evaluate(dataset, QUICK)["units"]["cpu"]["samples"] == 4 * 3


def test_a_shape_under_another_hash_on_another_machine_is_not_learned_from():
    found = samples(40)
    model = recorded("a", found)
    renamed = tuple(
        replace(s, workload=replace(s.workload, key=f"again {s.workload.key}"))
        for s in moved(found, OTHER)
    )
    data = unit_data(Dataset(samples=found + renamed))["cpu"]
    held, learned = samples_of(data, model), samples_without(data, [model])
    asked = {
        s.workload.inputs + s.workload.weights for s, h in zip(data.samples, held, strict=True) if h
    }
    seen = {
        s.workload.inputs + s.workload.weights
        for s, k in zip(data.samples, learned, strict=True)
        if k
    }
    assert held.sum() == 12
    assert learned.any()
    assert not asked & seen


def test_a_tie_is_no_miss():
    measured = np.log([10.0, 10.0, 20.0])
    found = metrics(np.log([3.0, 2.0, 5.0]), measured, ["a"] * 3)
    assert (found.top1, found.top1_loss) == (1.0, 0.0)


def test_boundaries_cost_what_was_measured():
    price = MeasuredBoundaries(boundaries()).price
    sample = boundaries()[0]
    assert price("transform", sample.tensor, "NCHW", "NHWC") == sample.us
    assert price("transform", sample.tensor, "NHWC", "NCHW") == 1.0
    assert price("crossing", sample.tensor, HOST, "cpu") == 0.0


def test_candidates_without_a_cost_are_left_out():
    model = recorded("a", samples(4))
    cost = Cost.timed(5.0, 0.0, "measured")
    problem = recorded_problem(
        model, lambda _, decision: cost if decision.layout == "NHWC" else None, lambda *_: 1.0
    )
    assert all(len(node.options) == 1 for node in problem.nodes)
