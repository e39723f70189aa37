"""The projection of selectors on networks, against all networks and placements of small spaces."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult

from layoutsel.cluster.links import LinearTime
from layoutsel.planning.programme import Programme
from layoutsel.search.front import NoNetwork
from layoutsel.search.offload.node_tensors import named_choice
from layoutsel.search.offload.noisy_selectors import with_noise
from layoutsel.search.offload.projection import project, tightest
from layoutsel.search.offload.projection_programme import ProjectionProgramme
from layoutsel.search.offload.settings import OffloadLimits, SelectorState
from layoutsel.search.offload.slicing import OffloadChoice
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.times import FIRST, SECOND
from layoutsel.search.offload.transmitted import PRECISIONS
from layoutsel.search.operations import NONE, SKIP
from layoutsel.search.parts import parts_of
from tests.search.offload_problems import (
    placements,
    planner_us,
    priced,
    small_space,
    transmission_cells,
)
from tvm_passes.errors import LayoutselError

OPERATIONS = ("none", "skip", "conv3")
CHANNELS = 2


def drawn_state(shape, seed, precisions=("float32",), links=1):
    rng = np.random.default_rng(seed)
    operations = []
    for cell in shape.cells:
        weights = rng.dirichlet(np.full(len(cell.operations), 0.7), len(cell.pairs))
        weights = weights * np.array(cell.offered)
        operations.append(weights / weights.sum(-1, keepdims=True))
    likely = np.array([float(name in precisions) for name in PRECISIONS]) * rng.random(3)
    return SelectorState(
        phase="test",
        time_weight=0.0,
        operations=tuple(operations),
        resources=tuple(rng.random(one.shape) for one in operations),
        channels={name: rng.random(size) for name, (size, *_) in shape.sendable()},
        precision=likely / likely.sum(),
        position=rng.dirichlet(np.full(len(shape.cells), 1.0)),
        link=rng.dirichlet(np.ones(links)),
        expected_us=0.0,
        expected_bytes=0.0,
    )


def test_noise_draws_operations_with_a_root_of_their_probabilities():
    shape = SupernetShape.of(small_space((1, 1), ("none", "skip", "conv1", "conv3")))
    state = drawn_state(shape, 3)
    random = np.random.default_rng(0)
    for temperature in (1.0, 2.0):
        drawn = [with_noise(state, random, temperature) for _ in range(4000)]
        for index, probabilities in enumerate(state.operations):
            wanted = probabilities ** (1 / temperature)
            wanted = wanted / wanted.sum(-1, keepdims=True)
            best = np.array([one.operations[index].argmax(-1) for one in drawn])
            shares = (best[..., None] == np.arange(wanted.shape[-1])).mean(0)
            assert np.abs(shares - wanted).max() < 0.03
        first = np.mean([one.resources[0] > 0.5 for one in drawn], axis=0)
        assert np.abs(first - state.resources[0]).max() < 0.03
        assert drawn[0].channels == state.channels


def every_choice(shape, state, links=("",)):
    """Each choice with its score: networks, placements, and numbers of the likeliest channels.

    Links are in the order of the state's probabilities.
    """
    space = shape.space
    for architecture in space.architectures():
        graph = parts_of(space, architecture)
        for devices in placements(space, architecture):
            likely = max(
                sum(_score(shape, state, architecture, devices, cell))
                for cell in transmission_cells(shape, devices)
            )
            crossing = _crossing(graph, devices)
            for counts in itertools.product(range(1, CHANNELS + 1), repeat=len(crossing)):
                kept, score = {}, likely
                for tensor, count in zip(crossing, counts, strict=True):
                    gates = _gates(shape, state, architecture, devices, tensor)
                    order = np.argsort(-gates)
                    kept[tensor] = tuple(sorted(order[:count].tolist()))
                    scores = [_gate_score(gates, n) for n in range(1, CHANNELS + 1)]
                    score += scores[count - 1] - max(scores)
                sending = itertools.product(
                    zip(PRECISIONS, state.precision, strict=True),
                    zip(links, state.link, strict=True),
                )
                for (precision, share), (link, share_of_link) in sending:
                    if share > 0:
                        choice = OffloadChoice(
                            architecture=architecture,
                            devices=devices,
                            kept=kept,
                            precision=precision,
                            link=link,
                        )
                        yield choice, score + np.log(share) + np.log(share_of_link)


def _score(shape, state, architecture, devices, transmission):
    yield np.log(state.position[transmission])
    for c, (cell, chosen) in enumerate(zip(shape.cells, architecture.operations, strict=True)):
        for p, (pair, name) in enumerate(zip(cell.pairs, chosen, strict=True)):
            o = cell.operations.index(name)
            yield np.log(state.operations[c][p, o])
            if name not in (NONE, SKIP) and c == transmission:
                first = state.resources[c][p, o]
                is_first = devices[cell.output(pair)] == FIRST
                yield np.log(first if is_first else 1 - first)


def _gate_score(gates, count):
    """Logarithm of the probability that so many gates are open, over all sets of gates."""
    numbers = range(len(gates))
    return np.log(
        sum(
            np.prod([gates[n] if n in chosen else 1 - gates[n] for n in numbers])
            for chosen in itertools.combinations(numbers, count)
        )
    )


def _crossing(graph, devices):
    return [
        part.name
        for part in graph.parts
        if devices[part.name] == FIRST
        and any(devices[one.name] == SECOND and part.name in one.inputs for one in graph.parts)
    ]


def _gates(shape, state, architecture, devices, tensor):
    """Gates of a sent tensor: those of the first node that it is, or of the operation's result."""
    if tensor == "stem" or "-" not in tensor:
        return state.channels[tensor]
    for cell in shape.cells:
        for pair in cell.pairs:
            if cell.output(pair) == tensor:
                total = cell.node(pair[1])
                return state.channels[tensor if total in devices else total]
    raise AssertionError(tensor)


@settings(deadline=None, max_examples=25)
@example(seed=8282, tightness=0.25, limited="b")
@example(seed=3, tightness=0.1, limited="t")
@given(seed=st.integers(0, 10_000), tightness=st.floats(0.0, 0.7), limited=st.sampled_from("tb-"))
def test_projection_is_the_most_probable_network_within_limits(seed, tightness, limited):
    space = small_space((2, 1), OPERATIONS, CHANNELS)
    shape, prices = SupernetShape.of(space), priced(space, seed, several_links=seed % 3 == 0)
    links = tuple(prices.links)
    precisions = ("float32", "uint8") if seed % 2 else ("float32",)
    state = drawn_state(shape, seed, precisions, len(links))
    every = [
        (choice, score, *planner_us(space, prices, choice))
        for choice, score in every_choice(shape, state, links)
    ]
    times, sizes = ([one[i] for one in every] for i in (2, 3))
    limits = OffloadLimits(
        us=np.quantile(times, tightness) if limited == "t" else None,
        bytes=float(np.quantile(sizes, tightness)) if limited == "b" else None,
    )
    best = max(
        score
        for _, score, us, size in every
        if us <= (limits.us or np.inf) and size <= (limits.bytes or np.inf)
    )
    found = project(shape, prices.times(shape), state, limits)
    assert found.score == pytest.approx(best, abs=2e-3)
    assert found.bound >= best - 2e-3
    us, size = planner_us(space, prices, found.choice)
    assert (found.us, found.bytes) == pytest.approx((us, size))
    assert us <= (limits.us or np.inf) * (1 + 1e-9)
    assert size <= (limits.bytes or np.inf)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"us": 1.0}, r"takes at most 0\.001 ms: the fastest one takes"),
        ({"bytes": 3.0}, "sends at most 3 bytes: the least is"),
        ({"us": None, "bytes": None}, "although each limit alone can be kept"),
    ],
)
def test_limits_that_nothing_keeps_name_the_tightest(limits, told):
    space = small_space((1, 1), ("conv1", "conv3"), 4)
    shape, prices = SupernetShape.of(space), priced(space)
    state = drawn_state(shape, 0)
    if limits.get("us", 0.0) is None:
        costs = [planner_us(space, prices, one) for one in every_smallest(shape)]
        least_us = min(us for us, _ in costs)
        least_bytes = min(size for _, size in costs)
        quickest_of_small = min(us for us, size in costs if size == least_bytes)
        if quickest_of_small <= least_us:
            pytest.skip("the smallest message belongs to the quickest network")
        limits = {"us": (least_us + quickest_of_small) / 2, "bytes": float(least_bytes)}
    with pytest.raises(NoNetwork, match=told):
        project(shape, prices.times(shape), state, OffloadLimits(**limits))


@pytest.mark.parametrize("kind", ["us", "bytes"])
def test_a_limit_broken_by_rounding_alone_is_named(kind):
    """The least value of a programme and its limit may be the same number."""
    space = small_space((1,), ("conv1",), 4)
    shape, times = SupernetShape.of(space), priced(space).times(SupernetShape.of(space))
    state = drawn_state(shape, 0)
    one = ProjectionProgramme(shape, times, state, OffloadLimits(), "float32", 0)
    told = {"us": "the fastest one takes", "bytes": "the least is"}[kind]
    assert told in tightest([one], OffloadLimits(**{kind: one.least(kind)}))


def test_a_projection_out_of_time_is_an_error(monkeypatch):
    space = small_space((1,), ("conv1",), 4)
    shape, times = SupernetShape.of(space), priced(space).times(SupernetShape.of(space))
    one = ProjectionProgramme(shape, times, drawn_state(shape, 0), OffloadLimits(), "float32", 0)
    ended = OptimizeResult(x=None, fun=None, status=1)
    monkeypatch.setattr(Programme, "minimised", lambda *_arguments, **_options: ended)
    for call in (one.solve, lambda: one.least("us")):
        with pytest.raises(LayoutselError, match="found no network in 60 s; offer fewer"):
            call()


def every_smallest(shape):
    """Choices that send one channel of each tensor."""
    for architecture in shape.space.architectures():
        graph = parts_of(shape.space, architecture)
        for devices in placements(shape.space, architecture):
            kept = {tensor: (0,) for tensor in _crossing(graph, devices)}
            yield OffloadChoice(architecture=architecture, devices=devices, kept=kept)


def test_channels_of_a_node_are_those_of_its_tensor():
    space = small_space((2,), ("none", "skip", "conv3"), 4)
    shape = SupernetShape.of(space)
    state = drawn_state(shape, 3)
    found = project(shape, priced(space).times(shape), state, OffloadLimits())
    graph = parts_of(space, found.choice.architecture)
    assert found.choice.kept.keys() == set(_crossing(graph, found.choice.devices))
    again = named_choice(
        shape,
        found.choice.architecture,
        found.choice.devices,
        found.choice.kept,
        found.choice.precision,
        found.choice.link,
    )
    assert again == found.choice


def test_a_slow_link_sends_the_least_and_a_fast_one_moves_operations():
    space = small_space((2, 1), ("none", "skip", "conv3", "separable3"), 4)
    shape, prices = SupernetShape.of(space), priced(space, 5)
    state, times = drawn_state(shape, 5), prices.times(shape)
    # The second device is faster at everything.
    quick = tuple(
        replace(
            cell,
            operations_us=cell.operations_us[..., :1] * [1.0, 0.1],
            sums_us=cell.sums_us[..., :1] * [1.0, 0.1],
        )
        for cell in times.cells
    )

    def quickest(us_per_byte):
        (link,) = times.links
        link = replace(link, message=LinearTime(us=1.0, us_per_byte=us_per_byte))
        priced_link = replace(times, cells=quick, links=(link,))
        programmes = [
            ProjectionProgramme(shape, priced_link, state, OffloadLimits(), "float32", position)
            for position in range(len(shape.cells))
        ]
        limits = OffloadLimits(us=min(one.least("us") for one in programmes) * (1 + 1e-9))
        return project(shape, priced_link, state, limits), programmes

    sizes = []
    for us_per_byte in (1e-9, 1e-2, 1.0, 1e3):
        found, programmes = quickest(us_per_byte)
        sizes.append(found.bytes)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == min(one.least("bytes") for one in programmes)
    fast, _ = quickest(1e-9)
    assert {part for part, device in fast.choice.devices.items() if device == FIRST} == {"stem"}


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000))
def test_tighter_limits_are_never_more_probable(seed):
    space = small_space((2, 2))
    shape, prices = SupernetShape.of(space), priced(space, seed)
    state, times = drawn_state(shape, seed), prices.times(shape)
    free = project(shape, times, state, OffloadLimits())
    scores, most = [free.score], free.bytes
    for _ in range(3):
        most /= 2
        try:
            found = project(shape, times, state, OffloadLimits(bytes=most))
        except NoNetwork:
            break
        assert found.bytes <= most
        assert found.score <= found.bound + 1e-6
        scores.append(found.score)
    assert all(later <= earlier + 1e-3 for earlier, later in itertools.pairwise(scores))
