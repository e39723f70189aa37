"""A search from the supernet to trained parts, its resumption and limits, and what it is compared with."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest

from layoutsel.device import training
from layoutsel.device.training import TrainingFailed
from layoutsel.exits.training.data import LabelledSamples
from layoutsel.search.front import NoNetwork
from layoutsel.search.offload.comparisons import (
    compressed_input,
    packed_bytes,
    placements_of,
    with_random_channels,
)
from layoutsel.search.offload.pricing import OffloadPrices
from layoutsel.search.offload.search import (
    CHECKPOINT,
    OffloadSearch,
    fitting,
    search,
    unbiased,
)
from layoutsel.search.offload.settings import OffloadLimits, OffloadRecipe, SupernetTask
from layoutsel.search.offload.slicing import slice_network
from layoutsel.search.offload.spaces import OFFLOAD_SPACES, handmade, handmade_choice, offload_space
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.parts import parts_of, signatures_of
from layoutsel.search.prices import ClassPrices, PriceTable
from layoutsel.search.space import Cell
from tests.search.offload_problems import drawn_choice, placements, planner_us, priced, small_space
from tvm_passes.errors import LayoutselError

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed (extra train)"
)
QUICK = OffloadRecipe(
    warm_epochs=2,
    search_epochs=2,
    sweep_epochs=1,
    retrain_epochs=3,
    trial_epochs=1,
    drawn_networks=1,
    time_weights=(0.1, 2.0),
)


def by_work(space, *, several_links=False):
    """Prices by the number of weights; a slice is cheaper than the whole part."""
    first = priced(space, several_links=several_links)

    def pricing(missing):
        us = {str(one): 1.0 + one.weight_bytes / 1e3 for one in missing}
        return PriceTable(
            classes={name: ClassPrices(us=us, spread_us=us) for name in set(first.classes.values())}
        )

    return OffloadPrices(first.routes, pricing)


@needs_torch
def test_a_search_finds_trained_parts_and_goes_on_after_an_end(tmp_path):
    space = small_space((1, 1), ("skip", "conv3", "separable3"), channels=12)
    question = OffloadSearch(
        space=space,
        prices=by_work(space),
        limits=OffloadLimits(bytes=400.0),
        recipe=QUICK,
        precisions=("float32", "uint8"),
    )
    reports = []
    found = list(search(question, tmp_path, reports.append))
    assert [(one.phase, one.epoch) for one in reports[:5]] == [
        ("warm", 1),
        ("warm", 2),
        ("search", 1),
        ("search", 2),
        ("sweep 2", 1),
    ]
    # Of each phase, the most probable network and a drawn one, if none beats that in a trial.
    assert 1 <= len(found) <= 4
    later = [one.phase for one in reports[5:]]
    trials = later.count("trial")
    assert later == ["teacher"] * 3 + ["trial"] * trials + ["retrain"] * 3 * len(found)
    assert trials == 0 or len(found) <= trials <= 4
    for one in found:
        assert one.projected.score == pytest.approx(one.projected.bound, abs=1e-3)
        assert sum(one.predicted.bytes.values()) <= 400
        assert one.predicted.us <= one.projected.us + 1e-6
        assert one.accuracies["tune"] > 0.25
        assert one.models.keys() == {"first", "second", "whole"}

    seen = []
    again = list(search(question, tmp_path, seen.append))
    assert seen == reports
    for one, same in zip(found, again, strict=True):
        assert same.projected.choice == one.projected.choice
        assert same.accuracies == one.accuracies
        for name, model in one.models.items():
            assert same.models[name].SerializeToString() == model.SerializeToString()
    other = replace(question, seed=1)
    with pytest.raises(TrainingFailed, match="state of a search with other settings"):
        list(search(other, tmp_path))


@needs_torch
def test_a_search_over_several_links_chooses_one(tmp_path):
    space = small_space((1,), ("skip", "conv3"))
    recipe = replace(QUICK, retrain_epochs=1, drawn_networks=0, time_weights=(5.0,))
    prices = by_work(space, several_links=True)
    question = OffloadSearch(space=space, prices=prices, recipe=recipe)
    (found,) = search(question, tmp_path)
    us = {link: prices.predict(replace(found.network, link=link)).us for link in prices.links}
    assert us[found.network.link] == found.predicted.us == min(us.values())
    with pytest.raises(TrainingFailed, match="state of a search with other settings, prices"):
        list(search(replace(question, prices=by_work(space)), tmp_path))


@needs_torch
def test_answers_of_a_teacher_are_learned(checked):
    """With the weight 1, labels have no effect: random ones end near the teacher's answers."""
    alone, taught = checked("agreement_with_a_teacher")
    assert alone < 0.3
    assert taught > 0.5


@needs_torch
def test_labels_and_answers_are_weighed(checked):
    found = checked("distillation_losses")
    assert found["labels alone"] == pytest.approx(found["cross entropy"])
    assert found["equal logits"] == pytest.approx(0.0, abs=1e-6)
    assert found["half"] == pytest.approx((found["cross entropy"] + found["answers alone"]) / 2)
    # At a high temperature gradients are those of squared differences of centred logits.
    assert found["gradient"] == pytest.approx(found["of squares"], rel=2e-2)


@needs_torch
def test_labels_alone_need_no_teacher(tmp_path):
    space = small_space((1,), ("skip", "conv3"))
    recipe = replace(
        QUICK, teacher_weight=0.0, retrain_epochs=1, drawn_networks=0, time_weights=(0.1,)
    )
    reports = []
    found = list(
        search(
            OffloadSearch(space=space, prices=by_work(space), recipe=recipe),
            tmp_path,
            reports.append,
        )
    )
    assert len(found) == 1
    assert {one.phase for one in reports} == {"warm", "search", "retrain"}


@needs_torch
def test_a_damaged_state_is_an_error(tmp_path):
    space = small_space((1,), ("conv3",))
    (tmp_path / CHECKPOINT).write_bytes(b"PK\x03\x04 not a state")
    question = OffloadSearch(space=space, prices=by_work(space), recipe=QUICK)
    with pytest.raises(TrainingFailed, match="cannot be read as the state of a search"):
        list(search(question, tmp_path))


def test_limits_that_nothing_keeps_end_before_the_training(tmp_path):
    space = small_space((1, 1))
    question = OffloadSearch(space=space, prices=by_work(space), limits=OffloadLimits(us=1.0))
    with pytest.raises(NoNetwork, match="the fastest one takes"):
        next(search(question, tmp_path))
    assert not list(tmp_path.iterdir())


def test_slices_that_take_longer_are_told_with_the_limit_that_was_asked():
    """Slices of some numbers of channels are slower than the full parts."""
    space = small_space((1, 1), ("conv1", "conv3"))
    first = priced(space)
    full = set(map(str, signatures_of(space)))

    def pricing(missing):
        us = {str(one): 10.0 if str(one) in full else 1000.0 for one in missing}
        return PriceTable(
            classes={name: ClassPrices(us=us, spread_us=us) for name in set(first.classes.values())}
        )

    prices = OffloadPrices(first.routes, pricing)
    shape = SupernetShape.of(space)
    state = unbiased(shape, ("float32",))
    one = {name: np.array([1.0, 0, 0, 0, 0, 0]) for name in state.channels}
    question = OffloadSearch(space=space, prices=prices, limits=OffloadLimits(us=900.0))
    with pytest.raises(NoNetwork, match=r"slices take at most 0\.900 ms: the fastest slices"):
        fitting(question, shape, prices.times(shape), replace(state, channels=one))


@needs_torch
def test_selectors_whose_slices_break_the_limit_cost_no_training(tmp_path, monkeypatch):
    space = small_space((1,), ("skip", "conv3"))
    question = OffloadSearch(
        space=space, prices=by_work(space), limits=OffloadLimits(bytes=400.0), recipe=QUICK
    )
    calls = []

    def fitting_at_first(*arguments):
        calls.append(fitting(*arguments))
        if len(calls) > 1:
            raise NoNetwork("slices take longer")
        return calls[0]

    monkeypatch.setattr("layoutsel.search.offload.search.fitting", fitting_at_first)
    (found,) = search(question, tmp_path)
    assert len(calls) == 1 + 2 * (1 + QUICK.drawn_networks)
    assert found.projected is calls[0]
    assert sum(found.predicted.bytes.values()) <= 400


def test_missing_pytorch_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda _name: None)
    space = small_space((1,))
    with pytest.raises(TrainingFailed, match=r"pip install 'layoutsel\[train\]'"):
        next(search(OffloadSearch(space=space, prices=by_work(space)), tmp_path))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"time_weights": ()}, "weights of the time: expected one or more"),
        ({"time_weights": (0.1, -1.0)}, "each 0 or more"),
        ({"retrain_epochs": 0}, "retrain_epochs 0: expected 1 or more"),
        ({"trial_epochs": 0}, "trial_epochs 0: expected 1 or more"),
        ({"drawn_networks": -1}, "drawn_networks -1: expected 0 or more"),
        ({"draw_temperature": -1.0}, r"draw_temperature -1\.0: expected 0 or more"),
        ({"teacher_weight": 1.5}, r"teacher_weight 1\.5: expected 0 to 1"),
        ({"teacher_temperature": 0.0}, r"teacher_temperature 0\.0: expected more than 0"),
    ],
)
def test_bad_settings_are_rejected(changes, told):
    with pytest.raises(LayoutselError, match=told):
        OffloadRecipe(**changes)


def test_unknown_names_are_rejected():
    space = small_space((1,))
    task = {
        "space": space,
        "times": priced(space).times(SupernetShape.of(space)),
        "recipe": QUICK,
        "checkpoint": "",
        "fingerprint": "",
    }
    with pytest.raises(LayoutselError, match="precision 'int4': expected one of float32"):
        SupernetTask(**task, precisions=("int4",))
    with pytest.raises(LayoutselError, match="selector 'links': expected one of operations"):
        SupernetTask(**task, frozen=("links",))
    with pytest.raises(LayoutselError, match="data set 'cifar': expected one of mnist1d"):
        offload_space("cifar")


def test_a_space_whose_widest_cells_have_no_network_is_rejected():
    space = small_space((1,))
    odd = Cell(name="odd", channels=(6, 8), operations=("skip",), nodes=1)
    with pytest.raises(LayoutselError, match="expected operations that make the greatest number"):
        SupernetShape.of(replace(space, cells=(odd,)))


@pytest.mark.parametrize("data", OFFLOAD_SPACES)
def test_spaces_have_a_handmade_network(data):
    space = offload_space(data)
    space.check()
    graph = parts_of(space, handmade(space))
    assert {part.signature.operation for part in graph.parts} <= {"conv3", "sum", "head"}
    assert sum(part.signature.operation == "conv3" for part in graph.parts) >= 2 * len(space.cells)


def test_a_handmade_network_without_its_operation_has_the_largest_one():
    space = small_space((2,), ("max3", "conv1", "separable5"))
    ((between, over, last),) = handmade(space).operations
    assert (between, over, last) == ("separable5",) * 3
    network = slice_network(parts_of(space, handmade(space)), handmade_choice(space))
    assert network.sent == {"stem": tuple(range(6))}
    assert network.precision == "float32"


def test_the_best_split_is_the_best_placement():
    space = small_space((2, 1))
    for seed in range(10):
        prices = priced(space, seed)
        architecture = drawn_choice(space, seed).architecture
        graph = parts_of(space, architecture)
        whole = {part.name: tuple(range(part.signature.channels)) for part in graph.parts}
        found = {one.name: one for one in placements_of(space, architecture, prices)}
        best = found["best split"]
        choice = replace(drawn_choice(space, seed), kept=whole, precision="float32")
        for devices in placements(space, architecture):
            us, _ = planner_us(space, prices, replace(choice, devices=devices))
            assert best.us <= us + 1e-6
        others = ("first device", "second device", "one split")
        assert best.us <= min(found[name].us for name in others) + 1e-6
        assert found["first device"].bytes == 0
        assert found["second device"].bytes == 4 * 40


def test_a_compressed_input_costs_its_packed_bytes():
    space = small_space((1,))
    prices = priced(space)
    flat = LabelledSamples(inputs=np.zeros((3, 1, 1, 40), np.float32), labels=np.zeros(3, int))
    flat.inputs[:, 0, 0, 0] = 1.0
    assert packed_bytes(flat) < 20
    noise = replace(flat, inputs=np.random.default_rng(0).normal(size=(3, 1, 1, 40)))
    assert packed_bytes(noise) == 40
    placed = {
        one.name: one for one in placements_of(space, drawn_choice(space, 0).architecture, prices)
    }
    found = compressed_input(space, drawn_choice(space, 0).architecture, prices, noise)
    line = prices.routes.route(*prices.nodes).line
    assert found.us == pytest.approx(placed["second device"].us - 120 * line.us_per_byte)
    assert found.bytes == 40


def test_random_channels_are_as_many():
    space = small_space((2, 1))
    choice = drawn_choice(space, 3)
    drawn = with_random_channels(choice, space, 1)
    assert {k: len(v) for k, v in drawn.kept.items()} == {k: len(v) for k, v in choice.kept.items()}
    assert drawn != choice
    assert json.dumps(drawn.kept)
