"""Exact fronts: equal to brute force over all networks and placements, with memory and gradients."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.memory import excess, peaks
from layoutsel.search import path_search
from layoutsel.search.dominance import hypervolume, non_dominated
from layoutsel.search.front import NoNetwork, Scores
from layoutsel.search.label_setting import front_of, front_within
from layoutsel.search.parts import parts_of
from layoutsel.search.placing import (
    WORKS,
    cluster_of,
    placed,
    placed_us,
)
from layoutsel.search.product_graph import WideCell, product_graph
from tests.cluster.clusters import star
from tests.search.spaces import (
    cells_space,
    chain_space,
    different_classes,
    random_prices,
    routes_over,
)


def best_of(points):
    """Non-dominated pairs of (time, score), in ascending order."""
    found = []
    for us, score in sorted(points, key=lambda one: (one[0], -one[1])):
        if not found or score > found[-1][1]:
            found.append((us, score))
    return found


def random_scores(space, rng, *, with_pairs):
    """Scores of choices, and of neighbours."""
    sizes = [len(cell.operations) * len(cell.channels) for cell in space.cells]
    return Scores(
        single=tuple(rng.uniform(0, 1, size) for size in sizes),
        pairs=tuple(rng.uniform(0, 1, pair) for pair in itertools.pairwise(sizes))
        if with_pairs
        else (),
        base=0.5,
    )


def score_of(space, scores, network):
    """Score of a network, from its choices."""
    index = [
        cell.operations.index(operation) * len(cell.channels) + cell.channels.index(channels)
        for cell, (operation,), channels in zip(space.cells, network.operations, network.channels, strict=True)
    ]  # fmt: skip
    total = scores.base + sum(one[i] for one, i in zip(scores.single, index, strict=True))
    return total + sum(one[i, j] for one, (i, j) in zip(scores.pairs, itertools.pairwise(index), strict=False))  # fmt: skip


def every_point(space, table, routes, scores, work):
    """Time and score of every network with every placement that fits."""
    for network in space.architectures():
        graph = parts_of(space, network)
        cluster = cluster_of(graph, table, routes, work)
        score = score_of(space, scores, network)
        for nodes in itertools.product(cluster.nodes, repeat=len(graph.parts)):
            held = {part.name: node for part, node in zip(graph.parts, nodes, strict=True)}
            placement = placed(graph, held, work)
            if not list(excess(cluster, peaks(cluster, [placement]))):
                yield placed_us(cluster, placement), score


@st.composite
def small_problems(draw):
    """A space of a few layers, with prices, a topology and scores."""
    seed, count = draw(st.integers(0, 10_000)), draw(st.integers(1, 3))
    operations = draw(st.sampled_from([("skip", "conv3"), ("conv1", "separable3", "max3")]))
    space = chain_space(draw(st.integers(1, 2)), operations, draw(st.sampled_from([(4,), (4, 6)])))
    if not space.size:
        space = chain_space(1, operations, (4, 6))
    memory = [draw(st.sampled_from([None, 4e3, 1e4])) for _ in range(count)]
    routes = routes_over(count, gbps=draw(st.sampled_from([0.01, 1.0])), memory_bytes=memory)
    scores = random_scores(space, np.random.default_rng(seed), with_pairs=draw(st.booleans()))
    work = draw(st.sampled_from(list(WORKS.values())))
    return space, random_prices(space, routes.topology, seed), routes, scores, work


@settings(deadline=None, max_examples=25)
@given(problem=small_problems())
def test_fronts_equal_those_of_brute_force(problem):
    space, table, routes, scores, work = problem
    expected = best_of(every_point(space, table, routes, scores, work))
    graph = product_graph(space, table, routes, work)
    if not expected:
        with pytest.raises(NoNetwork, match="memory"):
            front_of(graph, scores)
        return
    found = front_of(graph, scores)
    assert found.is_proven
    assert len(found.points) == len(expected)
    np.testing.assert_allclose([(p.us, p.score) for p in found.points], expected, rtol=1e-9)
    for point in found.points:
        parts = parts_of(space, point.architecture)
        cluster = cluster_of(parts, table, routes, work)
        placement = placed(parts, point.nodes, work)
        assert placed_us(cluster, placement) == pytest.approx(point.us, rel=1e-9)
        assert score_of(space, scores, point.architecture) == pytest.approx(point.score)
        assert not list(excess(cluster, peaks(cluster, [placement])))
    hurried = front_within(graph, scores, time_limit_s=0.0)
    for point in hurried.points if hurried is not None else ():
        assert found.most_accurate(point.us * (1 + 1e-12)).score >= point.score - 1e-9
        parts = parts_of(space, point.architecture)
        cluster = cluster_of(parts, table, routes, work)
        placement = placed(parts, point.nodes, work)
        assert not list(excess(cluster, peaks(cluster, [placement])))
    middle = found.points[len(found.points) // 2]
    limited = front_of(graph, scores, most_us=middle.us)
    within = [p.us for p in found.points if p.us <= middle.us]
    assert [p.us for p in limited.points] == pytest.approx(within)
    assert found.most_accurate(middle.us) == middle
    for per_us in (0.0, 1e-4, 1.0):
        best = max(score - per_us * us for us, score in expected)
        one = found.weighted(per_us)
        assert one.score - per_us * one.us == pytest.approx(best)


@settings(deadline=None, max_examples=25)
@given(problem=small_problems())
def test_guided_fronts_equal_those_of_brute_force(problem):
    space, table, routes, scores, work = problem
    expected = best_of(every_point(space, table, routes, scores, work))
    graph = product_graph(space, table, routes, work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(path_search, "UNGUIDED_LABELS", 0)
        found = front_within(graph, scores)
        hurried = front_within(graph, scores, time_limit_s=0.0)
        limited = front_within(graph, scores, most_us=expected[len(expected) // 2][0]) if expected else None  # fmt: skip
    if not expected:
        assert found is None
        return
    assert found.is_proven
    assert len(found.points) == len(expected)
    np.testing.assert_allclose([(p.us, p.score) for p in found.points], expected, rtol=1e-9)
    np.testing.assert_allclose(
        [(p.us, p.score) for p in limited.points], expected[: len(expected) // 2 + 1], rtol=1e-9
    )
    for point in (*found.points, *(hurried.points if hurried is not None else ())):
        parts = parts_of(space, point.architecture)
        cluster = cluster_of(parts, table, routes, work)
        placement = placed(parts, point.nodes, work)
        assert placed_us(cluster, placement) == pytest.approx(point.us, rel=1e-9)
        assert not list(excess(cluster, peaks(cluster, [placement])))


EIGHT = ("skip", "conv1", "conv3", "conv5", "separable3", "separable5", "max3", "avg3")


def large_problem(layers, nodes, *, with_pairs=False, memory_bytes=(), gbps=0.05, seed=7):
    """Product graph of layers of eight operations, and scores."""
    space = chain_space(layers, EIGHT)
    topology = different_classes(star(nodes, gbps=gbps, memory_bytes=memory_bytes))
    table = random_prices(space, topology, seed)
    graph = product_graph(space, table, MessageRoutes(topology))
    return graph, random_scores(space, np.random.default_rng(seed), with_pairs=with_pairs)


@pytest.mark.parametrize("with_pairs", [False, True])
@pytest.mark.parametrize("memory_bytes", [1.5e4, 2.5e4])
def test_bounds_leave_out_no_point_of_a_front(with_pairs, memory_bytes):
    graph, scores = large_problem(
        6, 3, with_pairs=with_pairs, memory_bytes=[memory_bytes] * 3, seed=5
    )
    fronts = []
    for most in (0, 10**6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(path_search, "UNGUIDED_LABELS", most)
            fronts.append(front_within(graph, scores))
    guided, every = fronts
    assert guided.is_proven
    assert every.is_proven
    assert len(every.points) > 10
    np.testing.assert_allclose(
        [(p.us, p.score) for p in guided.points],
        [(p.us, p.score) for p in every.points],
        rtol=1e-12,
    )


def test_twelve_layers_with_six_limited_nodes_are_proven_in_two_seconds():
    graph, scores = large_problem(12, 6, memory_bytes=[3e4] * 6, gbps=0.5)
    begin = time.process_time()
    found = front_of(graph, scores)
    took = time.process_time() - begin
    assert found.is_proven
    assert len(found.points) > 20
    assert len({node for point in found.points for node in point.nodes.values()}) > 1
    assert took < 2.0


@pytest.mark.parametrize("with_pairs", [False, True])
def test_twelve_layers_of_eight_operations_on_six_nodes_are_proven_in_two_seconds(with_pairs):
    graph, scores = large_problem(12, 6, with_pairs=with_pairs)
    begin = time.process_time()
    found = front_of(graph, scores)
    assert found.is_proven
    assert len(found.points) > 20
    assert time.process_time() - begin < 2.0


def test_a_front_that_lost_labels_says_so():
    graph, scores = large_problem(12, 6)
    assert not front_of(graph, scores, most_labels=3).is_proven


def test_the_tightest_limit_is_named():
    space = chain_space(2, ("conv3", "conv5"))
    free, small = star(2), star(2, memory_bytes=[100.0, None])
    scores = random_scores(space, np.random.default_rng(0), with_pairs=False)
    table = random_prices(space, free, 0)
    fits = front_of(product_graph(space, table, MessageRoutes(small)), scores)
    assert set(fits.points[0].nodes.values()) == {"n1"}
    tiny = star(2, memory_bytes=[100.0, 100.0])
    with pytest.raises(NoNetwork, match=r"memory of 'n[01]'"):
        front_of(product_graph(space, table, MessageRoutes(tiny)), scores)
    with pytest.raises(NoNetwork, match=r"at most 0.5 us: the fastest of the space takes \d"):
        front_of(product_graph(space, table, MessageRoutes(free)), scores, most_us=0.5)
    with pytest.raises(NoNetwork, match=r"no network takes at most 0\.5 us"):
        fits.most_accurate(0.5)


@pytest.mark.parametrize("memory_bytes", [(), [3e4] * 6])
def test_a_growing_weight_of_time_never_chooses_a_slower_network(memory_bytes):
    graph, scores = large_problem(12, 6, memory_bytes=memory_bytes, gbps=0.5)
    front = front_of(graph, scores)
    chosen = [front.weighted(weight) for weight in (0.0, *np.geomspace(1e-4, 1.0, 30))]
    for light, heavy in itertools.pairwise(chosen):
        assert heavy.us <= light.us
        assert heavy.score <= light.score
    assert chosen[0] == front.points[-1]
    assert chosen[-1] == front.points[0]
    assert len({point.us for point in chosen}) > 5


def test_more_bandwidth_never_slows_the_front_down_and_moves_work_to_the_faster_node():
    space = chain_space(3, ("conv3", "conv5", "skip"))
    scores = random_scores(space, np.random.default_rng(3), with_pairs=False)
    fronts = []
    for gbps in (1e-6, 1e-3, 1.0, 1e6):
        topology = different_classes(star(2, gbps=gbps, rtt_us=0.0))
        table = random_prices(space, topology, 3)
        slow, fast = table.classes.values()
        slower = replace(slow, us={key: 4 * us for key, us in fast.us.items()})
        table = replace(table, classes=dict(zip(table.classes, (slower, fast), strict=True)))
        fronts.append(front_of(product_graph(space, table, MessageRoutes(topology)), scores))
    for slow, fast in itertools.pairwise(fronts):
        for point in slow.points:
            assert fast.most_accurate(point.us * (1 + 1e-12)).score >= point.score - 1e-12
    assert set(fronts[0].points[-1].nodes.values()) == {"n0"}
    assert set(fronts[-1].points[-1].nodes.values()) == {"n1"}


def test_cells_with_inner_nodes_are_no_layers():
    space, topology = cells_space(2), star(2)
    with pytest.raises(WideCell, match="cell 'a' has 2 nodes"):
        product_graph(space, random_prices(space, topology, 0), MessageRoutes(topology))


@given(
    points=st.lists(st.tuples(*[st.integers(0, 6)] * 4), min_size=1, max_size=40),
    columns=st.integers(0, 2),
)
def test_non_dominated_points_equal_those_of_pairwise_comparison(points, columns):
    values = np.array(points, dtype=float)
    small = np.column_stack([values[:, 0], -values[:, 1], values[:, 2 : 2 + columns]])
    kept = non_dominated(values[:, 0], values[:, 1], values[:, 2 : 2 + columns])
    distinct = {tuple(row) for row in small}
    expected = {
        one for one in distinct
        if not any(other != one and all(np.less_equal(other, one)) for other in distinct)
    }  # fmt: skip
    assert {tuple(small[i]) for i in kept} == expected
    assert len(kept) == len(expected)
    assert (np.diff(values[kept, 0]) >= 0).all()


@given(points=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_hypervolume_counts_the_dominated_unit_squares(points):
    cost, value = np.array(points, dtype=float).reshape(-1, 2).T
    squares = sum(
        any(c <= x and v >= y + 1 for c, v in points)
        for x in range(10) for y in range(2, 12)
    )  # fmt: skip
    assert hypervolume(cost, value, (10.0, 2.0)) == pytest.approx(squares)
