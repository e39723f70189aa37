"""The learned model: learns a law, says how sure it is, is the same for the same data, and is whole or refused."""

from __future__ import annotations

import hashlib
import lzma
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import LAYOUTS, boundaries, convolution, profile, samples
from tiers import examples

from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost import features
from layoutsel.cost.corrections import Adaptation, Traits
from layoutsel.cost.learned import PRETRAINED, LearnedCost, LearnedModel
from layoutsel.cost.model import Question
from layoutsel.cost.place import Place
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.samples import Dataset
from layoutsel.cost.training import TrainingOptions, fit_part, subgraph_table, train
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

QUICK = TrainingOptions(rounds=120, quantile_rounds=20, depth=5, rate=0.1)


@pytest.fixture(scope="module")
def model():
    return train(Dataset(samples=samples(), boundaries=boundaries()), QUICK)


@pytest.fixture(scope="module")
def cost(model):
    return LearnedCost(model, profile())


def test_it_beats_the_roofline_on_workloads_it_has_not_seen(cost):
    unseen = samples(30, seed=99)
    roofline = RooflineCost(peaks=profile().peaks)

    def error(price):
        return np.mean([abs(price(s.workload, s.decision).us / s.us - 1) for s in unseen])

    assert error(cost.subgraph) < 0.15 < error(roofline.estimate)


def test_equal_data_give_equal_bytes(model, tmp_path):
    code = (
        "from learning import LAYOUTS, boundaries, samples\n"
        "from layoutsel.cost.samples import Dataset\n"
        "from layoutsel.cost.training import TrainingOptions, train\n"
        f"print(train(Dataset(samples=samples(), boundaries=boundaries()), {QUICK!r}).version)"
    )
    tests = str(PRETRAINED.parents[2] / "tests")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == model.version
    model.save(tmp_path)
    bytes_of = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in tmp_path.iterdir()}
    LearnedModel.load(tmp_path).save(tmp_path)
    assert bytes_of == {
        f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in tmp_path.iterdir()
    }


def test_other_seeds_give_other_boosters(model):
    assert (
        train(Dataset(samples=samples()), replace(QUICK, seed=1)).parts["cpu"]
        != (model.parts["cpu"])
    )


@settings(max_examples=examples(60), deadline=None)
@given(
    field=st.sampled_from(["flops", "weight_bytes", "activation_bytes"]),
    factor=st.floats(1.0, 1000.0),
    channels=st.integers(1, 512),
    side=st.integers(1, 64),
    layout=st.sampled_from(LAYOUTS),
)
def test_more_work_is_never_faster(cost, field, factor, channels, side, layout):
    work = convolution(channels, 64, side, 3)
    more = replace(work, **{field: getattr(work, field) * factor})
    decision = Decision(unit="cpu", layout=layout)
    before, after = cost.subgraph(work, decision), cost.subgraph(more, decision)
    assert after.us >= before.us * (1 - 1e-5)


def test_noise_widens_the_uncertainty_and_lowers_the_weight():
    quiet = subgraph_table(samples(60))
    noisy = subgraph_table(samples(60, noise=0.3))
    assert noisy.weights.mean() < 0.1
    assert quiet.weights.mean() > 0.9

    def width(table):
        part, _ = fit_part(replace(table, weights=np.ones(len(table))), QUICK)
        return np.mean(part.predict(table.rows, np.zeros(len(table), np.float32))[1])

    assert width(noisy) > 2 * width(quiet)


def test_a_workload_by_itself_does_not_vouch_for_the_model():
    """Nothing can be held out, so the card must not claim that the held-out predictions were right."""
    work = convolution(64, 64, 28)
    found = [replace(s, workload=work, us=20.0 * s.us) for s in samples(10)]
    assert len({sample.workload.key for sample in found}) == 1
    made = train(Dataset(samples=tuple(found)), QUICK)
    assert made.card.parts["cpu"].within_10 < 0.5
    price = LearnedCost(made, profile()).subgraph(work, Decision(unit="cpu", layout="NHWC"))
    assert price.spread_us > 0


def test_noisy_samples_count_less():
    """Half of the samples are wrong by a factor of three, and known to be noisy."""
    right, wrong = samples(60), samples(60, seed=1)
    wrong = tuple(replace(s, us=3 * s.us, spread_us=2 * s.us) for s in wrong)
    made = train(Dataset(samples=right + wrong), QUICK)
    unseen, price = samples(30, seed=99), LearnedCost(made, profile()).subgraph
    assert np.mean([abs(price(s.workload, s.decision).us / s.us - 1) for s in unseen]) < 0.2


def test_a_law_of_one_sample_is_not_learned():
    with pytest.raises(LayoutselError, match="got 3 samples; expected at least"):
        train(Dataset(samples=samples(1)))


def test_a_unit_without_a_model_is_priced_by_its_roofline(cost):
    found = cost.subgraph(convolution(8, 8, 7), Decision(unit="toy"))
    assert found.source == "roofline"


def test_what_no_log_was_of_is_less_certain(model, cost):
    work, decision = convolution(64, 64, 28, 3), Decision(unit="cpu", layout="NHWC")
    known = cost.subgraph(work, decision)
    strange = cost.subgraph(replace(work, operator="nn.strange"), decision)
    assert strange.spread_us / strange.us > known.spread_us / known.us + 0.1
    elsewhere = LearnedCost(model, profile(cores=1))
    assert cost.knows_machine
    assert not elsewhere.knows_machine
    there = elsewhere.subgraph(work, decision)
    assert there.spread_us / there.us > known.spread_us / known.us + 0.1
    calibrated = LearnedCost(model, profile(cores=1), Adaptation())
    assert calibrated.knows_machine


def test_a_calibration_corrects_and_tells_how_far(model):
    asked = [
        Question(convolution(64, 64, size, 3), Decision(unit="cpu", layout="NHWC"))
        for size in (7, 14, 28, 56)
    ]
    plain = LearnedCost(model, profile(cores=1))
    before = plain.subgraphs(asked)
    rows, _ = features.feature_table(
        [features.PricingQuestion(q.workload, q.decision, plain.profile) for q in asked]
    )
    traits = Traits.of(["cpu"] * len(asked), rows, np.log([cost.us for cost in before]))
    twice = LearnedCost(model, profile(cores=1), Adaptation(traits, (math.log(2),) * len(asked)))
    after = twice.subgraphs(asked)
    for old, new in zip(before, after, strict=True):
        assert 1.5 * old.us < new.us < 2.1 * old.us
        assert 0.1 < new.spread_us / new.us < 0.4


def test_boundaries_are_learned(cost):
    for sample in boundaries(8):
        found = cost.boundary(sample.tensor, Place("NCHW"), Place("NHWC"))
        assert found.source == "learned"
        assert found.us == pytest.approx(sample.us, rel=0.3)
    tensor = BoundaryTensor(shape=(1, 8), dtype="float32", bytes=32)
    assert cost.boundary(tensor, Place("NCHW"), Place("NCHW")).us == 0.0


@pytest.mark.parametrize("name", ["model.json", "cpu.ubj.xz", "cpu.quantiles.ubj.xz"])
def test_a_model_that_is_not_whole_is_one_error(model, tmp_path, name):
    model.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(LayoutselError, match=str(tmp_path)):
        LearnedModel.load(tmp_path)


@pytest.mark.parametrize("name", ["cpu.ubj.xz", "cpu.quantiles.ubj.xz"])
@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda _: b"hello",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],
        lambda raw: raw[:500] + bytes([raw[500] ^ 1]) + raw[501:],
        lambda _: lzma.compress(b""),
        lambda _: lzma.compress(b"hello"),
        lambda _: lzma.compress(b"{}"),
        lambda raw: lzma.compress(lzma.decompress(raw)[:2000]),
    ],
)
def test_broken_boosters_are_one_error(model, tmp_path, name, change):
    """Bytes that XGBoost does not get to see: some end the process."""
    model.save(tmp_path)
    file = tmp_path / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(LayoutselError, match=str(tmp_path)):
        LearnedModel.load(tmp_path)


def test_boosters_of_two_trainings_do_not_mix(model, tmp_path):
    model.save(tmp_path)
    other = train(Dataset(samples=samples(20)), replace(QUICK, seed=1))
    other.save(tmp_path / "other")
    (tmp_path / "other" / "cpu.ubj.xz").replace(tmp_path / "cpu.ubj.xz")
    with pytest.raises(LayoutselError, match=str(tmp_path)):
        LearnedModel.load(tmp_path)


def test_a_model_of_another_version_is_refused(model, tmp_path):
    model.save(tmp_path)
    file = tmp_path / "model.json"
    known = f'"features_version": {features.VERSION}'
    file.write_text(file.read_text().replace(known, '"features_version": 0'))
    with pytest.raises(LayoutselError, match="Train it again"):
        LearnedModel.load(tmp_path)


def test_the_shipped_model_covers_both_units():
    card = LearnedModel.load().card
    assert {"cpu", "onednn", "boundary"} <= set(card.parts)


@pytest.mark.parametrize("text", ["onednn:NHWC:bf16", "cpu:NHWC:split-bf16", "amx:NHWC:bf16"])
def test_what_it_was_not_trained_for_is_a_wide_guess_of_the_roofline(cost, text):
    work, decision = convolution(64, 64, 28), Decision.parse(text)
    answer = cost.subgraph(work, decision)
    assert answer == RooflineCost(peaks=profile().peaks).estimate(work, decision)
    assert answer.source == "roofline"
    assert answer.spread_us >= 0.5 * answer.us


@pytest.mark.parametrize(
    "pair", [("NHWC", "NHWC.bf16"), ("NCHW32c.split", "NCHW"), ("NCHW32c", "NHWC")]
)
def test_so_are_transforms_between_storages(cost, pair):
    tensor = BoundaryTensor(shape=(1, 64, 28, 28), dtype="float32", bytes=4 * 64 * 28 * 28)
    assert cost.boundary(tensor, *map(Place, pair)).source == "roofline"
    assert cost.boundary(tensor, Place("NCHW"), Place("NHWC")).source == "learned"


def test_so_are_hand_overs_with_other_units(cost):
    tensor = BoundaryTensor(shape=(1, 64, 28, 28), dtype="float32", bytes=4 * 64 * 28 * 28)
    assert cost.boundary(tensor, Place(unit="cpu"), Place(unit="amx")).source == "roofline"


def test_what_it_was_trained_for_it_predicts():
    others = [
        replace(sample, decision=replace(sample.decision, precision="bf16"), us=sample.us / 4)
        for sample in samples(40, seed=5)
    ]
    stored = [replace(sample, destination="NHWC.bf16") for sample in boundaries()]
    mixed = Dataset(samples=(*samples(), *others), boundaries=(*boundaries(), *stored))
    cost = LearnedCost(train(mixed, QUICK), profile())
    work = convolution(64, 64, 28)
    narrow, wide = (cost.subgraph(work, Decision.parse(f"cpu:NHWC:{p}")) for p in ("bf16", "f32"))
    assert narrow.source == "learned"
    assert narrow.us < 0.5 * wide.us
    tensor = BoundaryTensor(shape=(1, 64, 28, 28), dtype="float32", bytes=4 * 64 * 28 * 28)
    assert cost.boundary(tensor, Place("NCHW"), Place("NHWC.bf16")).source == "learned"
