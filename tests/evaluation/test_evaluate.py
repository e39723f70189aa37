"""Judging a cost model: honest splits, measures by hand, regrets that are zero for a perfect predictor."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from learning import LAYOUTS, boundaries, profile, samples

from layoutsel.core.workload import Cost
from layoutsel.cost.samples import Dataset, Offer, RecordedModel, RecordedNode
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.cost.training import TrainingOptions
from layoutsel.evaluation.evaluate import evaluate
from layoutsel.evaluation.holding_out import GROUPS, grouped, samples_of, samples_without, unit_data
from layoutsel.evaluation.metrics import metrics
from layoutsel.evaluation.regret import MeasuredBoundaries, measured_costs, model_regret
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import LayoutselError

QUICK = TrainingOptions(rounds=60, quantile_rounds=10, depth=5, rate=0.15)


def recorded(name: str, found, length: int = 4, units=("cpu",)) -> RecordedModel:
    """A chain of the workloads of `found`."""
    keys = list(dict.fromkeys(sample.workload.key for sample in found))[:length]
    offers = tuple(
        Offer(decision=Decision(unit=u, layout=n), in_layouts=(n,), out_layouts=(n,))
        for u in units
        for n in LAYOUTS
    )
    ids = [SubgraphId(f"s{i}") for i in range(len(keys))]
    nodes = tuple(
        RecordedNode(id=i, key=key, offers=offers) for i, key in zip(ids, keys, strict=True)
    )
    tensors = tuple(
        Tensor(
            producer=a,
            output_index=0,
            uses=(TensorUse(consumer=b, input_index=0),),
            shape=(1, 64, 28, 28),
            bytes=200_704,
        )
        for a, b in zip([None, *ids], [*ids, None], strict=True)
    )
    return RecordedModel(name=name, machine=profile().name, nodes=nodes, tensors=tensors)


@pytest.fixture(scope="module")
def dataset():
    seen, other = samples(60), samples(12, seed=5)
    both = tuple(
        replace(s, decision=Decision(unit=u, layout=s.decision.layout))
        for s in (*seen, *other)
        for u in ("cpu", "onednn")
    )
    models = tuple(recorded(n, f, units=("cpu", "onednn")) for n, f in (("a", other), ("b", seen)))
    return Dataset(samples=both, boundaries=boundaries(), models=models)


def test_a_split_leaks_nothing(dataset):
    elsewhere = tuple(
        replace(s, provenance=replace(s.provenance, profile=profile(1))) for s in dataset.samples
    )
    renamed = tuple(
        replace(s, workload=replace(s.workload, key=f"again {s.workload.key}"))
        for s in dataset.samples
    )
    data = unit_data(Dataset(samples=dataset.samples + elsewhere + renamed))["cpu"]
    model = dataset.models[0]
    held, learned = samples_of(data, model), samples_without(data, [model])
    assert held.sum() == 4 * 3
    assert not (held & learned).any()
    held_rows = {row.tobytes() for row in data.table.rows[held]}
    for sample, row, is_learned in zip(data.samples, data.table.rows, learned, strict=True):
        if is_learned:
            assert sample.workload.key not in model.keys
            assert row.tobytes() not in held_rows
    assert learned.any()


def test_related_models_are_left_out_together():
    names = ("resnet50 on a/2", "resnet50 on b/2", "fpn_resnet34", "resnext50_32x4d", "bert_mini")
    others = [f"own{number}" for number in range(20)]
    found = samples(12)
    groups = grouped([recorded(name, found) for name in (*names, *others)])
    together = [{model.name for model in group} for group in groups]
    assert sorted(name for group in together for name in group) == sorted((*names, *others))
    assert len(groups) == GROUPS
    (group,) = (group for group in together if "fpn_resnet34" in group)
    assert {*names[:4]} <= group
    assert "bert_mini" not in group


def test_a_related_model_is_not_learned_from(dataset):
    data = unit_data(dataset)["cpu"]
    alone, together = (samples_without(data, dataset.models[:count]) for count in (1, 2))
    assert (together <= alone).all()
    for sample, is_learned in zip(data.samples, together, strict=True):
        assert not is_learned or all(sample.workload.key not in m.keys for m in dataset.models)


def test_metrics_by_hand():
    measured = np.log([10.0, 20.0, 100.0, 50.0])
    predicted = np.log([10.5, 23.0, 100.0, 70.0])
    found = metrics(predicted, measured, ["a", "a", "b", "b"])
    assert (found.samples, found.within_10, found.within_20) == (4, 0.5, 0.75)
    assert found.mape == pytest.approx((0.05 + 0.15 + 0 + 0.4) / 4, abs=1e-4)
    assert (found.spearman, found.top1, found.top1_loss) == (1.0, 1.0, 0.0)
    turned = metrics(-predicted, measured, ["a", "a", "b", "b"])
    assert (turned.top1, turned.top1_loss) == (0.0, 1.0)


def test_a_perfect_predictor_loses_nothing(dataset):
    model = dataset.models[0]
    truth = measured_costs(s for s in dataset.samples if s.workload.key in model.keys)
    boundary = MeasuredBoundaries(dataset.boundaries).price
    regret = model_regret(model, truth, boundary, truth, boundary, truth, measure_budget_s=20.0)
    assert regret.cold == regret.hybrid == 0
    assert regret.random > 0
    assert regret.predicted == 1
    twice = {key: Cost.timed(2 * cost.us, 0.0, "learned") for key, cost in truth.items()}

    def twice_boundary(*asked):
        return 2 * boundary(*asked)

    assert model_regret(model, truth, boundary, twice, twice_boundary, truth, 20.0).predicted == 2


def test_the_document(dataset):
    found = json.loads(json.dumps(evaluate(dataset, QUICK, stability_plans=2)))
    assert found["schema_version"] == 1
    assert set(found["units"]) == {"cpu", "onednn"}
    for by_unit in (found["units"], *found["baselines"].values()):
        for row in by_unit.values():
            assert {"samples", "within_10", "within_20", "mape", "spearman", "top1"} <= set(row)
    assert {"cold", "hybrid", "random", "score"} <= set(found["regret"])
    assert found["units"]["cpu"]["mape"] < found["baselines"]["roofline"]["cpu"]["mape"]
    assert found["units"]["cpu"]["samples"] == 2 * 4 * 3
    ratios = [model["regrets"]["f32"]["predicted"] for model in found["models"].values()]
    whole = found["whole_models"]["f32"]
    assert whole["within_10"] == np.mean([abs(ratio - 1) <= 0.1 for ratio in ratios])
    assert whole["mape"] == pytest.approx(np.mean([abs(ratio - 1) for ratio in ratios]), abs=1e-4)
    assert set(found["models"]) == set(found["stability"]) == {"a", "b"}
    assert found["machines"] == {}


def test_a_machine_left_out_is_predicted_better_after_calibration(dataset):
    slower = profile(cores=1, isa=("avx2", "avx"))
    there = tuple(
        replace(s, us=1.7 * s.us, provenance=replace(s.provenance, profile=slower))
        for s in samples(80, machine=slower)
    )
    found = evaluate(replace(dataset, samples=dataset.samples + there), QUICK)
    transfer = found["machines"][slower.name]["cpu"]
    assert transfer["after"]["mape"] < 0.7 * transfer["before"]["mape"]


def test_only_some_models_are_judged(dataset):
    assert set(evaluate(dataset, QUICK, only=["b"])["models"]) == {"b"}
    with pytest.raises(LayoutselError, match="expected one of a, b"):
        evaluate(dataset, QUICK, only=["c"])


def test_without_models_there_is_nothing_to_judge(dataset):
    with pytest.raises(LayoutselError, match="nothing to evaluate"):
        evaluate(replace(dataset, models=()), QUICK)
