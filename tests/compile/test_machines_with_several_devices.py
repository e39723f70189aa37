"""Machine files with several devices of one kind: which ones candidates are for, and what they cost."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper

from layoutsel.compile.cost_sources import CostSources
from layoutsel.compile.legality import check_legal
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.planning.pins import UnsatisfiedPin
from layoutsel.planning.plan import Plan
from layoutsel.planning.symmetry import interchangeable
from tests.small_models import model_of
from tvm_passes.decision import Decision
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import IllegalDecision

CUDA = tuple(DeviceId("", "cuda", index) for index in range(64))
CARD = {
    "name": "a card",
    "compute_units": 72,
    "clock_mhz": 1695.0,
    "gflops": 31200.0,
    "memory_gbps": 600.0,
    "launch_us": 5.0,
    "target": "nvidia/nvidia-a10",
}
OTHER = {**CARD, "name": "another card", "gflops": 3000.0}
CHANNELS, LENGTH = 256, 5
SHAPE = (1, CHANNELS, 32, 32)


def machine(*cards, direct_gbps=None):
    """A slow CPU with these cards."""
    names = [device.target_name for device in CUDA[: len(cards)]]
    ends = [(HOST_DEVICE, one) for one in CUDA[: len(cards)]]
    ends += [pair[::-1] for pair in ends]
    links = [
        {"source": str(a), "destination": str(b), "latency_us": 10.0, "gbps": 25.0} for a, b in ends
    ]
    if direct_gbps is not None:
        direct = [pair for both in pairwise(CUDA[: len(cards)]) for pair in (both, both[::-1])]
        links += [
            {"source": str(a), "destination": str(b), "latency_us": 5.0, "gbps": direct_gbps}
            for a, b in direct
        ]
    return {
        "machine": {
            "cpu": "a modelled one",
            "cores": 2,
            "isa": ["avx2", "fma"],
            "caches": {"L2": 1 << 20},
            "memory_gib": 16,
        },
        "peaks": {
            "threads": 2,
            "gflops": 10.0,
            "cache_gbps": 9.0,
            "memory_gbps": 3.0,
            "cache_bytes": 2 << 20,
            "launch_us": 1.0,
        },
        "devices": dict(zip(names, cards, strict=True)),
        "links": links,
    }


@pytest.fixture(name="model", scope="module")
def model_fixture(tmp_path_factory):
    """A stem, two branches of convolutions, and their sum, which the last one of a branch takes in."""
    weights, nodes = {}, []

    def conv(name, source):
        shape = (CHANNELS, CHANNELS, 3, 3)
        weights[f"{name}_w"] = np.random.default_rng(len(weights)).random(shape, np.float32)
        nodes.append(
            helper.make_node("Conv", [source, f"{name}_w"], [name], name=name, pads=[1] * 4)
        )
        return name

    stem = conv("stem", "x")
    ends = []
    for side in ("left", "right"):
        end = stem
        for number in range(LENGTH):
            end = conv(f"{side}{number}", end)
        ends.append(end)
    nodes.append(helper.make_node("Add", ends, ["y"], name="join"))
    path = tmp_path_factory.mktemp("model") / "branches.onnx"
    onnx.save(model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, weights), path)
    return path


@pytest.fixture(name="opened")
def opened_fixture(model, tmp_path):
    def opened(*cards, direct_gbps=None, **options):
        file = tmp_path / "machine.json"
        file.write_text(json.dumps(machine(*cards, direct_gbps=direct_gbps)))
        units = options.pop("units", ["cpu", "cuda"])
        return Session.open(
            str(model), machine=file, units=units, cache=tmp_path / "cache.sqlite", **options
        )

    return opened


def offered(session):
    """Devices that candidates of the first sub-graph are for."""
    decisions = Offers.of(session).candidates[session.graph.ids[0]].decisions
    return {decision.device for decision in decisions} - {HOST_DEVICE}


def test_a_device_like_another_is_offered_where_work_overlaps(opened):
    assert offered(opened(CARD, CARD)) == {CUDA[0]}
    assert offered(opened(CARD, CARD, parallel=True)) == set(CUDA[:2])


def test_different_devices_are_always_offered(opened):
    session = opened(CARD, OTHER, CARD)
    assert offered(session) == set(CUDA[:2])
    assert session.alike[CUDA[2]] == CUDA[0]
    assert offered(opened(CARD, OTHER, CARD, parallel=True)) == set(CUDA[:3])


def test_no_more_devices_are_offered_than_can_be_of_use(opened):
    session = opened(*[CARD] * 64, parallel=True, pins=["join=cuda@40"])
    assert session.graph.width == 2
    assert offered(session) == {*CUDA[:3], CUDA[40]}
    problem = priced_problem(Offers.of(session), "roofline", ["join=cuda@40"])
    assert problem.stands_for == dict.fromkeys(["cuda", "cuda/1", "cuda/2", "cuda/40"], 16)
    plan = best_plan(session, problem)
    assert plan.makespan.bound_us <= plan.makespan.us
    assert plan.subgraphs[-1].decision.placed_unit == "cuda@40"
    few = opened(*[CARD] * 3, parallel=True)
    assert not priced_problem(Offers.of(few), "roofline").stands_for


def test_a_pin_offers_the_device_that_it_names(opened):
    assert offered(opened(CARD, CARD, CARD, pins=["stem=cuda@2"])) == {CUDA[0], CUDA[2]}


def test_prices_of_devices_that_are_alike_are_equal(opened):
    session = opened(CARD, OTHER, CARD, parallel=True)
    problem = priced_problem(Offers.of(session), "roofline")
    assert interchangeable(problem) == ((CUDA[0], CUDA[2]),)
    for node in problem.nodes:
        costs = {option.decision: option.cost_us for option in node.options}
        for decision, us in costs.items():
            if decision.device == CUDA[0]:
                assert costs[decision.on(CUDA[2])] == us
                assert costs[decision.on(CUDA[1])] != us


def test_copies_cost_what_the_links_say(opened):
    through, direct = (
        priced_problem(Offers.of(opened(CARD, CARD, parallel=True, direct_gbps=gbps)), "roofline")
        for gbps in (None, 200.0)
    )
    pair = ("cuda", "cuda/1")
    (one, other) = (
        next(t for t in problem.tensors if pair in t.copy_us) for problem in (through, direct)
    )
    there, back = one.copy_us["host", "cuda/1"], one.copy_us["cuda", "host"]
    assert there == pytest.approx(10.0 + one.bytes / 25e3)
    assert one.copy_us[pair] == pytest.approx(there + back)
    assert other.copy_us[pair] == pytest.approx(5.0 + one.bytes / 200e3)


def test_two_cards_finish_two_branches_earlier_than_one(opened, tmp_path):
    plans = []
    for cards in ((CARD,), (CARD, CARD)):
        session = opened(*cards, parallel=True, direct_gbps=200.0)
        plans.append(best_plan(session, priced_problem(Offers.of(session), "roofline")))
    one, two = plans
    assert two.makespan.us < 0.75 * one.makespan.us
    by_name = {s.names[0]: s.decision.device for s in two.subgraphs}
    last = LENGTH - 1  # on the card of either branch, as it reads both
    sides = [{by_name[f"{side}{n}"] for n in range(last)} for side in ("left", "right")]
    assert sorted(side.pop() for side in sides) == [CUDA[0], CUDA[1]]
    assert not any(sides)
    two.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == two


@pytest.mark.parametrize("parallel", [False, True])
def test_without_time_the_plan_is_legal_bounded_and_not_explained(opened, parallel, caplog):
    cards = [{**CARD, "name": f"card {n}", "gflops": 3000.0 + n} for n in range(12)]
    session = opened(*cards, parallel=parallel, time_limit_s=1e-3)
    plan = best_plan(session, priced_problem(Offers.of(session), "roofline"))
    check_legal(session, plan.decisions)
    assert all(0 < value.bound <= value.value for value in plan.values.values())
    assert plan.gains is plan.uncertainty is plan.score_cost_us is None
    assert not any(subgraph.alternatives for subgraph in plan.subgraphs)
    assert "no time is left to compare the plan with others" in caplog.text


def test_the_sum_of_costs_needs_one_card(opened):
    session = opened(CARD, CARD, pins=["left0=cuda@1"])
    plan = best_plan(session, priced_problem(Offers.of(session), "roofline", ["left0=cuda@1"]))
    placed = {s.names[0]: s.decision.placed_unit for s in plan.subgraphs}
    assert placed["left0"] == "cuda@1"
    assert set(placed.values()) <= {"cpu", "cuda@1", "cuda"}


def test_a_pin_to_a_card_that_is_not_there(opened):
    session = opened(CARD, CARD, pins=["stem=cuda@2"])
    with pytest.raises(
        UnsatisfiedPin, match=r"'stem=cuda@2' cannot be honoured .* no unit offers it"
    ):
        priced_problem(Offers.of(session), "roofline", ["stem=cuda@2"])


@pytest.mark.parametrize("device", ["cuda@2", "cuda@edge0/0", "cpu@1"])
def test_a_plan_for_a_device_that_is_not_there_is_refused(opened, device):
    session = opened(CARD, CARD)
    decisions = dict.fromkeys(session.graph.ids, Decision.parse("cuda@1:NCHW"))
    check_legal(session, decisions)
    first = session.graph.ids[0]
    wrong = {**decisions, first: Decision.parse(f"{device}:NCHW")}
    present = "cuda/0, cuda/1" if device.startswith("cuda") else "cpu/0"
    with pytest.raises(IllegalDecision, match=rf"got device .*; expected one of {present}, which"):
        check_legal(session, wrong)


def test_measurements_are_kept_by_what_a_device_is(opened):
    versions = opened(CARD, OTHER, CARD).context.versions
    assert versions["cuda:device"] == "a card"
    assert versions["cuda@1:device"] == "another card"
    assert "cuda@2:device" not in versions
    profile = CostSources(opened(CARD, OTHER, CARD)).profile
    assert [profile.device(one).name for one in CUDA[:3]] == ["a card", "another card", "a card"]


def test_a_decision_is_measured_on_the_first_device_that_is_alike(opened):
    offers = Offers.of(opened(CARD, OTHER, CARD))
    texts = {"cuda:NCHW": "cuda:NCHW", "cuda@1:NCHW": "cuda@1:NCHW", "cuda@2:NHWC": "cuda:NHWC"}
    for text, measured in {**texts, "onednn:NHWC": "onednn:NHWC"}.items():
        assert str(offers.measured_as(Decision.parse(text))) == measured
    assert replace(Decision.parse("cuda@2:NCHW"), index=0) == Decision(unit="cuda")
