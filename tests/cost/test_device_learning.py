"""Learning from devices: features of their own, beside the host's boosters; what was not seen is the roofline's."""

import json
from dataclasses import replace

import numpy as np
import pytest
from learning import boundaries, profile, samples, workloads

from layoutsel.cost import features
from layoutsel.cost.device_peaks import DevicePeaks
from layoutsel.cost.learned import PRETRAINED, LearnedCost, LearnedModel
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.samples import Dataset
from layoutsel.cost.training import TrainingOptions, tables, train
from tests.links import both_ways
from tvm_passes.decision import Decision
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import LayoutselError

QUICK = TrainingOptions(rounds=120, quantile_rounds=20, depth=5, rate=0.1)
CARD = DevicePeaks(
    name="a card",
    compute_units=20,
    clock_mhz=1500.0,
    gflops=9000.0,
    memory_gbps=700.0,
    launch_us=6.0,
)
HOST = profile()
LINKS = both_ways(HOST_DEVICE, DeviceId("", "opencl", 0), latency_us=9.0, gbps=12.0)
MACHINE = replace(HOST, devices={"opencl": CARD}, links=LINKS)
OTHER_CARD = replace(CARD, name="another card", gflops=18_000.0)
ELSEWHERE = replace(MACHINE, devices={"opencl": OTHER_CARD})
OPENCL = Decision(unit="opencl", layout="NCHW")


def measured(machine=MACHINE, count=60, seed=0):
    """Samples of the law that the device is a third as fast as its peak, behind two launches."""
    device = machine.devices["opencl"]
    return tuple(
        replace(
            sample,
            decision=OPENCL,
            us=2 * device.launch_us + 3 * sample.workload.flops / device.gflops * 1e-3,
        )
        for sample in samples(count, seed=seed, unit="opencl", machine=machine)
        if sample.decision.layout == "NCHW"
    )


@pytest.fixture(scope="module")
def model():
    host = samples(machine=MACHINE)
    return train(Dataset(samples=host + measured(), boundaries=boundaries()), QUICK)


def test_devices_are_learned_beside_the_host(model):
    cost, roofline = LearnedCost(model, MACHINE), RooflineCost.of(MACHINE)
    unseen = measured(count=30, seed=99)
    prices = [cost.subgraph(sample.workload, OPENCL) for sample in unseen]
    assert {price.source for price in prices} == {"learned"}
    off = [abs(price.us / s.us - 1) for price, s in zip(prices, unseen, strict=True)]
    before = [abs(roofline.estimate(s.workload, OPENCL).us / s.us - 1) for s in unseen]
    assert np.mean(off) < 0.2 < np.mean(before)


def test_a_device_that_nobody_measured_is_the_rooflines(model):
    work = workloads(1)[0]
    for machine in (ELSEWHERE, HOST):
        cost = LearnedCost(model, machine)
        assert cost.subgraph(work, OPENCL) == RooflineCost.of(machine).estimate(work, OPENCL)
        assert cost.subgraph(work, replace(OPENCL, unit="cpu")).source == "learned"
    price = LearnedCost(model, ELSEWHERE).subgraph(work, OPENCL)
    assert price.spread_us >= price.us


def test_several_devices_tell_of_another():
    both = measured() + measured(ELSEWHERE, seed=5)
    cost = LearnedCost(train(Dataset(samples=both), QUICK), MACHINE)
    third = replace(MACHINE, devices={"opencl": replace(CARD, name="a third card")})
    work = workloads(1, seed=9)[0]
    known, unknown = (
        LearnedCost(cost.model, where).subgraph(work, OPENCL) for where in (MACHINE, third)
    )
    assert unknown.source == "learned"
    assert unknown.us == known.us
    assert unknown.spread_us > known.spread_us


def test_a_model_with_devices_is_a_file(model, tmp_path):
    model.save(tmp_path)
    again = LearnedModel.load(tmp_path)
    assert again.card == model.card
    assert set(again.card.device_features) == {"opencl"}
    assert again.card.parts["opencl"].machines == ("a card",)
    work = workloads(1)[0]
    price = LearnedCost(again, MACHINE).subgraph(work, OPENCL)
    assert price == LearnedCost(model, MACHINE).subgraph(work, OPENCL)
    written = json.loads((tmp_path / "model.json").read_text())
    written["device_features"]["opencl"].pop()
    (tmp_path / "model.json").write_text(json.dumps(written))
    with pytest.raises(LayoutselError, match="Train it again"):
        LearnedModel.load(tmp_path)


def test_the_packages_model_knows_no_device():
    shipped = LearnedModel.load(PRETRAINED)
    assert not shipped.card.device_features
    work = workloads(1)[0]
    assert LearnedCost(shipped, MACHINE).subgraph(work, OPENCL).source == "roofline"
    assert LearnedCost(shipped, MACHINE).subgraph(work, replace(OPENCL, unit="cpu")).source == (
        "learned"
    )


def test_features_of_the_host_stay_as_they_are():
    work = workloads(1)[0]
    on_host = Decision(unit="cpu", layout="NHWC")
    rows = [
        features.features(features.PricingQuestion(work, on_host, where))
        for where in (HOST, MACHINE)
    ]
    assert np.array_equal(*rows)
    assert len(rows[0]) == len(features.NAMES)
    row = features.features(features.PricingQuestion(work, OPENCL, MACHINE))
    assert len(row) == len(features.NAMES) + len(features.DEVICE_NAMES)
    assert np.isfinite(row).all()


def test_what_is_no_feature_is_left_out():
    undescribed = measured()[:5]
    without = tuple(replace(s, provenance=replace(s.provenance, profile=HOST)) for s in undescribed)
    copies = tuple(
        replace(b, kind="crossing", source="cpu", destination="opencl") for b in boundaries(9)
    )
    described = tuple(replace(c, provenance=replace(c.provenance, profile=MACHINE)) for c in copies)
    dataset = Dataset(samples=measured() + without, boundaries=boundaries() + described)
    found = {name: (table, seen) for name, table, seen in tables(dataset)}
    assert len(found["opencl"][0]) == len(measured())
    assert len(found["boundary"][0]) == len(boundaries())
    assert "opencl" not in found["boundary"][1].forms
