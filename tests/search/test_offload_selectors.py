"""Selectors, the expected time, and the training of a supernet."""

import importlib.util
import itertools
import math
import random

import pytest

from layoutsel.search.offload.projection import project
from layoutsel.search.offload.settings import SELECTORS, OffloadLimits, SelectorState
from layoutsel.search.offload.supernet_shape import SupernetShape
from tests.search.offload_problems import LINKS, drawn_choice, planner_us, priced, small_space

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed (extra train)"
)
pytestmark = needs_torch


def test_relaxations_have_their_gradients(checked):
    assert max(checked("relaxations_have_their_gradients").values()) < 1e-7


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.95])
def test_gates_are_open_as_often_as_stated(checked, probability):
    share, stated = checked("sampled_shares", probability)
    assert share == pytest.approx(stated, abs=0.004)


def test_expected_time_of_decisions_is_the_planners_cost(checked):
    rng = random.Random(1)
    cases = []
    for seed in range(150):
        nodes = tuple(rng.randint(1, 3) for _ in range(rng.randint(1, 3)))
        cases.append((small_space(nodes), seed % 7, seed, LINKS if seed % 2 else ("",)))
    for (space, prices_seed, seed, links), (us, sent) in zip(
        cases, checked("expected_of", cases), strict=True
    ):
        prices = priced(space, prices_seed, several_links=len(links) > 1)
        wanted = planner_us(space, prices, drawn_choice(space, seed, links))
        assert (us, sent) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("precisions", [("float32",), ("float32", "bfloat16", "uint8")])
def test_gradients_of_all_selectors_are_right(checked, precisions):
    found = checked("selector_loss_gradients", precisions)
    assert found.keys() == set(SELECTORS)
    for kind, (norm, difference) in found.items():
        assert (norm > 1e-4) == (kind != "precision" or len(precisions) > 1), kind
        assert difference < 1e-6 * max(1.0, norm), kind


@pytest.mark.parametrize("frozen", [(), ("channels",), ("operations", "resources")])
def test_a_step_moves_all_selectors_and_no_weight(checked, frozen):
    moved, weights = checked("a_step_moves_all_selectors", frozen)
    assert weights == 0
    assert {kind for kind, change in moved.items() if change == 0} == set(frozen)


@pytest.mark.parametrize(("kind", "own"), [("us", 0), ("bytes", 1)])
def test_multipliers_rise_until_a_limit_is_kept(checked, kind, own):
    seen = checked("ascent_to_a_limit", kind)
    values = [value for value, _ in seen]
    assert values[0] > 1.2
    assert min(values) < 1
    assert values[-1] < 1.1
    assert all(ones[1 - own] == 0 for _, ones in seen)
    # The multiplier rises exactly while the limit is exceeded, by at most 0.02, and never below 0.
    before = 0.0
    for value, ones in seen:
        rise = 0.2 * min(math.log(value), 0.1)
        assert ones[own] == pytest.approx(max(0.0, before + rise), abs=1e-5)
        before = ones[own]


def test_gates_are_bounded_alike_at_both_ends(checked):
    """A tensor with all gates shut is expected to send a fifth of a channel of twelve."""
    shut, open_, others = checked("bounds_of_selectors")
    assert shut == pytest.approx(1 - open_, rel=1e-4)
    assert 12 * shut < 0.25
    assert others == pytest.approx((1 / (1 + math.exp(4)), 1 / (1 + math.exp(-4))))


def test_an_interrupted_training_goes_on(checked, tmp_path):
    whole, resumed = checked("resumed_training", str(tmp_path / "state.pt"))
    assert [one[:2] for one in whole] == [
        ("SearchReport", "warm"),
        ("SearchReport", "search"),
        ("SearchReport", "search"),
        ("SelectorState", "search"),
        ("SearchReport", "sweep 1"),
        ("SelectorState", "sweep 1"),
    ]
    assert resumed == whole


@pytest.mark.parametrize("kind", ["us", "bytes"])
def test_a_growing_weight_never_raises_the_cost_of_the_projected_network(checked, kind):
    weights, seed = (0.0, 0.1, 1.0, 10.0), 0
    space = small_space((2, 1))
    shape = SupernetShape.of(space)
    times = priced(space, seed).times(shape)
    reached, projected = [], []
    for weight, (cost, state) in zip(
        weights, checked("traded_off", (kind, weights, seed)), strict=True
    ):
        held = SelectorState(
            phase="test", time_weight=weight, expected_us=0.0, expected_bytes=0.0, **state
        )
        network = project(shape, times, held, OffloadLimits())
        reached.append(cost)
        projected.append(getattr(network, kind))
    for costs in (reached, projected):
        assert all(later <= before * (1 + 1e-3) for before, later in itertools.pairwise(costs))
        assert costs[-1] < 0.7 * costs[0]
