"""Kernels on tiles: the rates of the terms of their time are learned, stored and monotone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from learning import convolution, profile, samples

from layoutsel.cost import features, tiles
from layoutsel.cost.learned import LearnedCost, LearnedModel
from layoutsel.cost.samples import Dataset
from layoutsel.cost.training import TrainingOptions, train
from tvm_passes.decision import Decision

DECISIONS = [
    Decision.parse(f"amx:NHWC:{precision}{algorithm}")
    for precision in ("bf16", "split-bf16")
    for algorithm in ("", ":tall", ":wide")
]
BLOCKS = {"": (2, 2), "tall": (4, 1), "wide": (1, 4)}


def hinted(work, decision):
    """`work` with the products that a kernel on tiles has for it."""
    _, channels, height, width = work.outputs[0]
    depth = int(np.prod(work.weights[0][1:]))
    count = -(-height * width // 16) * -(-channels // 16) * -(-depth // 32)
    pixels, columns = BLOCKS["" if decision.algorithm == "direct" else decision.algorithm]
    found = {
        "kernel_amx": 1.0,
        "products": count * (1.0 if decision.precision == "bf16" else 3.0),
        "tasks": 2.0,
        "tile_pixels": float(pixels),
        "tile_channels": float(columns),
        "copied": 0.0,
    }
    return replace(work, hints={str(decision): found})


def measured(count, seed=0):
    """Samples whose times are a sum of products, loads and tensors in memory."""
    law = np.array([1.0, 900.0, 200.0, 400.0, 1.5, 1.0, 0.5, 2.0, 1.0, 3.0, 0.0, 5.0])
    found = []
    for one in samples(count, seed)[::3]:
        for decision in DECISIONS:
            work = hinted(one.workload, decision)
            row = features.features(features.PricingQuestion(work, decision, profile()))
            us = float(tiles.terms(row[None])[0] @ law)
            found.append(replace(one, workload=work, decision=decision, us=us, spread_us=0.01 * us))
    return tuple(found)


def table(found):
    asked = [features.PricingQuestion(s.workload, s.decision, profile()) for s in found]
    rows, rooflines = features.feature_table(asked)
    return rows, rooflines, np.log([s.us for s in found])


def test_a_sum_of_terms_is_found_and_holds_for_unseen_kernels():
    rows, _, targets = table(measured(60))
    rates = tiles.fit_rates(rows, targets, np.ones(len(rows)))
    assert min(rates) >= 0
    rows, rooflines, targets = table(measured(30, seed=9))
    assert tiles.margins(rows, rooflines, rates) == pytest.approx(targets, abs=0.01)


def test_outliers_do_not_move_the_rates():
    rows, rooflines, targets = table(measured(60))
    wrong = targets.copy()
    wrong[::10] += 3.0
    rates = tiles.fit_rates(rows, wrong, np.ones(len(rows)))
    assert tiles.margins(rows, rooflines, rates) == pytest.approx(targets, abs=0.05)


def test_few_kernels_and_other_kernels_keep_the_roofline():
    rows, rooflines, targets = table(measured(60))
    few = tiles.FEWEST - 1
    assert tiles.fit_rates(rows[:few], targets[:few], np.ones(few)) == ()
    rates = tiles.fit_rates(rows, targets, np.ones(len(rows)))
    others, known, times = table(samples(60))
    assert tiles.fit_rates(others, times, np.ones(len(others))) == ()
    assert (tiles.margins(others, known, rates) == known).all()
    both = tiles.margins(np.vstack([others, rows]), np.concatenate([known, rooflines]), rates)
    assert (both[: len(known)] == known).all()
    assert (both[len(known) :] != rooflines).all()


@pytest.mark.parametrize("field", ["flops", "weight_bytes", "activation_bytes"])
def test_more_work_is_never_faster(field):
    found = measured(60)
    rows, _, targets = table(found)
    rates = tiles.fit_rates(rows, targets, np.ones(len(rows)))
    more = [
        replace(s, workload=replace(s.workload, **{field: 3 * getattr(s.workload, field)}))
        for s in found
    ]
    grown, rooflines, _ = table(more)
    before = tiles.margins(rows, rooflines, rates)
    assert (tiles.margins(grown, rooflines, rates) >= before).all()


def test_a_stored_model_keeps_its_rates(tmp_path):
    made = train(Dataset(samples=measured(60)), TrainingOptions(rounds=40, quantile_rounds=10))
    assert made.parts["amx"].rates == made.card.parts["amx"].rates != ()
    made.save(tmp_path)
    loaded = LearnedModel.load(tmp_path)
    work, decision = convolution(64, 128, 14, 3), DECISIONS[1]
    asked = hinted(work, decision), decision
    costs = [LearnedCost(model, profile()).subgraph(*asked) for model in (made, loaded)]
    assert costs[0].us == costs[1].us
    row = features.features(features.PricingQuestion(*asked, profile()))[None]
    estimate = float(np.exp(tiles.margins(row, np.zeros(1), made.parts["amx"].rates)[0]))
    assert costs[0].us == pytest.approx(estimate, rel=0.2)
