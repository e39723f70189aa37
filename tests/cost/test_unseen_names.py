"""Names that the trained model has not seen: predicted all the same, less certain, without training again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from math import isfinite

import numpy as np
import pytest
from learning import boundaries, convolution, profile, samples

from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost import features
from layoutsel.cost.learned import PRETRAINED, LearnedCost, LearnedModel
from layoutsel.cost.place import Place
from layoutsel.cost.samples import Dataset
from layoutsel.cost.training import TrainingOptions, train
from tvm_passes.decision import Decision

NHWC = Decision(unit="cpu", layout="NHWC")
OTHERS = {
    "unit": replace(NHWC, unit="npu"),
    "layout": replace(NHWC, layout="NDHWC24z"),
    "precision": replace(NHWC, precision="fp4"),
    "algorithm": replace(NHWC, algorithm="fft"),
}
EVERYTHING = replace(NHWC, layout="NDHWC24z", algorithm="fft")
WORK = replace(
    convolution(64, 64, 28, 3),
    hints={str(one): {"tasks": 8.0} for one in (NHWC, EVERYTHING, *OTHERS.values())},
)
UNSEEN = {
    **{name: (WORK, decision) for name, decision in OTHERS.items()},
    "operator": (replace(WORK, operator="nn.deformable"), NHWC),
    "fused operator": (replace(WORK, operators=("nn.conv2d", "nn.mish")), NHWC),
}


@pytest.fixture(scope="module")
def shipped():
    return LearnedCost(LearnedModel.load(), profile())


@pytest.fixture(scope="module")
def trained():
    quick = TrainingOptions(rounds=60, quantile_rounds=10, depth=4, rate=0.1)
    data = Dataset(samples=samples(40), boundaries=boundaries())
    return LearnedCost(train(data, quick), profile())


@pytest.mark.parametrize("which", ["shipped", "trained"])
@pytest.mark.parametrize("name", UNSEEN)
def test_it_is_priced_and_less_certain(request, which, name):
    cost = request.getfixturevalue(which)
    known, found = cost.subgraph(WORK, NHWC), cost.subgraph(*UNSEEN[name])
    assert isfinite(found.us)
    assert found.us > 0
    assert found.spread_us / found.us > known.spread_us / known.us + 0.01


def test_everything_unseen_at_once(shipped):
    work = replace(WORK, operator="nn.deformable", operators=("nn.deformable", "nn.mish"))
    most = shipped.subgraph(work, EVERYTHING)
    assert most.source == "learned"
    for name in ("layout", "algorithm", "operator"):
        one = shipped.subgraph(*UNSEEN[name])
        assert most.spread_us / most.us > one.spread_us / one.us


def test_no_facts_about_the_code_are_less_certain(shipped, trained):
    """From shapes alone; unless the model was trained without such facts."""
    bare = replace(WORK, hints={})
    known, found = shipped.subgraph(WORK, NHWC), shipped.subgraph(bare, NHWC)
    assert found.source == "learned"
    assert found.spread_us / found.us > known.spread_us / known.us + 0.5
    usual, same = trained.subgraph(WORK, NHWC), trained.subgraph(bare, NHWC)
    assert usual.spread_us / usual.us == pytest.approx(same.spread_us / same.us, rel=0.2)
    assert trained.model.card.parts["cpu"].unhinted == ("nn.conv2d",)


def test_other_names_set_no_feature_of_their_group():
    here = profile()
    row = features.features(features.PricingQuestion(*UNSEEN["layout"], here))
    columns = [n for n, name in enumerate(features.NAMES) if name.startswith("layout_")]
    assert not row[columns].any()
    known = features.features(features.PricingQuestion(WORK, NHWC, here))
    others = np.setdiff1d(np.arange(len(row)), columns)
    assert np.array_equal(row[others], known[others])


def test_a_boundary_to_an_unseen_layout_or_unit_is_a_wide_guess(shipped):
    tensor = BoundaryTensor(shape=(1, 64, 28, 28), dtype="float32", bytes=4 * 64 * 28 * 28)
    here = Place("NCHW", "cpu")
    for there in (Place("NDHWC24z", "cpu"), Place("NCHW", "npu"), Place("NDHWC24z", "npu")):
        cost = shipped.boundary(tensor, here, there)
        assert cost.us > 0
        assert cost.spread_us >= 0.5 * cost.us


def test_the_card_of_a_new_model_names_what_it_has_seen(trained):
    card = trained.model.card.parts["cpu"]
    assert card.layouts == ("NCHW", "NCHW16c", "NHWC")
    assert card.algorithms == ("direct",)
    assert card.fused == ("nn.conv2d", "nn.relu")


def test_a_card_without_these_names_is_read(tmp_path, trained):
    """An older model."""
    trained.model.save(tmp_path)
    assert LearnedModel.load(tmp_path).card == trained.model.card
    shutil.copytree(PRETRAINED, tmp_path / "older")
    file = tmp_path / "older" / "model.json"
    document = json.loads(file.read_text())
    for part in document["parts"].values():
        del part["layouts"], part["algorithms"], part["fused"]
    file.write_text(json.dumps(document))
    assert LearnedModel.load(tmp_path / "older").card.parts["cpu"].layouts == ()
