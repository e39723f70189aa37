"""Targets against brute force, within limits and memories, and how they change with the topology."""

import itertools
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from tiers import examples

from layoutsel.cluster.asked import Asked
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.metrics import (
    ENERGY,
    HZ,
    LATENCY,
    MEMORY,
    METRICS,
    THROUGHPUT,
    Predictor,
    Share,
    alone,
)
from layoutsel.cluster.plan_targets import plan_targets
from layoutsel.cluster.segments import Target
from layoutsel.cluster.statistics import LinkState, NodeState, Statistics
from layoutsel.cluster.targets import answer
from layoutsel.cluster.throughput import best_throughput
from layoutsel.cluster.throughput_target import bound_hz
from layoutsel.planning.problem import ProblemError
from tests.cluster.clusters import (
    ORIGIN,
    chain,
    cluster_of,
    every_placement,
    limited,
    small_clusters,
    star,
    two_branches,
    with_times,
)

SAME = 1e-6


def asked(cluster, name, limit_s=20.0, **limits):
    target = Target(name=name, limits=limits)
    return Asked(Predictor(cluster), target, time.monotonic() + limit_s)


def solved(cluster, name, **limits):
    """Value and bound of a target."""
    one = asked(cluster, name, **limits)
    found = answer(one)
    assert not one.broken(found.mix)
    return METRICS[name].value(one.predictor, found.mix), found.bound


def brute_force(cluster, name, **limits):
    """Best value of all single placements within the limits; None without any."""
    one = asked(cluster, name, **limits)
    mixes = [alone(placement) for placement in every_placement(cluster)]
    values = [METRICS[name].value(one.predictor, mix) for mix in mixes if not one.broken(mix)]
    pick = max if METRICS[name].maximised else min
    return pick(values, default=None)


@settings(max_examples=examples(25), deadline=None)
@given(cluster=small_clusters(5))
def test_the_latency_is_the_least_of_all(cluster):
    value, bound = solved(cluster, LATENCY)
    assert value == pytest.approx(brute_force(cluster, LATENCY), rel=SAME)
    assert bound <= value * (1 + SAME)


@settings(max_examples=examples(40), deadline=None)
@given(cluster=small_clusters())
def test_the_energy_is_the_least_of_all(cluster):
    value, bound = solved(cluster, ENERGY)
    assert value == pytest.approx(brute_force(cluster, ENERGY), rel=SAME)
    assert bound == pytest.approx(value, rel=SAME)


@settings(max_examples=examples(40), deadline=None)
@given(cluster=small_clusters())
def test_the_peak_memory_is_the_least_of_all(cluster):
    value, bound = solved(cluster, MEMORY)
    best = brute_force(cluster, MEMORY)
    assert best * (1 - SAME) <= value <= best * 1.006
    assert bound <= best * (1 + SAME)


def test_a_loose_bound_on_the_throughput_is_replaced(monkeypatch):
    """Column generation may end early, with a bound that says nothing."""
    cluster = cluster_of(two_branches(2), star(3, gbps=10.0))

    def hurried(problem, **options):
        found = best_throughput(problem, **options)
        return replace(found, bound_per_us=1e3 * found.bound_per_us)

    monkeypatch.setattr("layoutsel.cluster.throughput_target.best_throughput", hurried)
    value, bound = solved(cluster, THROUGHPUT)
    assert value * (1 - SAME) <= bound <= value * 1.01


@settings(max_examples=examples(40), deadline=None)
@given(cluster=small_clusters())
def test_the_throughput_is_between_the_best_placement_and_its_bound(cluster):
    value, bound = solved(cluster, THROUGHPUT)
    assert value >= brute_force(cluster, THROUGHPUT) * (1 - 2e-3)
    assert value * (1 - SAME) <= bound <= value * 1.01


@settings(max_examples=examples(40), deadline=None)
@given(
    cluster=small_clusters(),
    share=st.sampled_from([0.3, 0.6, 0.9]),
    name=st.sampled_from([ENERGY, LATENCY]),
)
def test_memories_are_kept_and_nothing_better_fits(cluster, share, name):
    total = sum(cluster.graph.weight_bytes.values()) + 1.0
    tight = limited(cluster, [share * total] * len(cluster.nodes))
    best = brute_force(tight, name)
    if best is None:
        with pytest.raises(ProblemError, match=r"does not fit: .* MB missing on n\d"):
            solved(tight, name)
        return
    value, bound = solved(tight, name)
    assert bound <= best * (1 + SAME)
    if name == ENERGY:
        assert value == pytest.approx(best, rel=SAME)
    assert value >= best * (1 - SAME)


@settings(max_examples=examples(40), deadline=None)
@given(cluster=small_clusters(), share=st.floats(0.0, 1.0))
def test_limits_of_other_metrics_are_kept_and_nothing_better_keeps_them(cluster, share):
    least, most = (
        brute_force(cluster, MEMORY),
        max(
            METRICS[MEMORY].value(
                Predictor(cluster), alone(dict.fromkeys(cluster.graph.atoms, node))
            )
            for node in cluster.nodes
        ),
    )
    limit = least + share * (most - least)
    value, _ = solved(cluster, ENERGY, memory=limit)
    assert value == pytest.approx(brute_force(cluster, ENERGY, memory=limit), rel=SAME)


@settings(max_examples=examples(20), deadline=None)
@given(cluster=small_clusters(5), slack=st.sampled_from([1.0, 1.2, 2.0]))
def test_a_latency_within_a_limit_of_throughput(cluster, slack):
    limit = brute_force(cluster, THROUGHPUT) / slack
    value, bound = solved(cluster, LATENCY, throughput=limit * (1 - SAME))
    best = brute_force(cluster, LATENCY, throughput=limit * (1 - SAME))
    assert bound <= best * (1 + SAME)
    assert value >= best * (1 - SAME)


@settings(max_examples=examples(20), deadline=None)
@given(
    cluster=small_clusters(5),
    slack=st.sampled_from([1.0001, 1.1, 2.0]),
    name=st.sampled_from([ENERGY, MEMORY, THROUGHPUT]),
)
def test_branches_may_overlap_within_a_limit_of_latency(cluster, slack, name):
    limit = slack * brute_force(cluster, LATENCY)
    _, bound = solved(cluster, name, latency=limit)
    assert not METRICS[name].is_better(brute_force(cluster, name, latency=limit), bound) or (
        bound == pytest.approx(brute_force(cluster, name, latency=limit), rel=SAME)
    )


def least_of_mixes(cluster, name, rate_hz):
    """Least mean of a metric over all mixes of placements with a throughput."""
    predictor = Predictor(cluster)
    mixes = [alone(placement) for placement in every_placement(cluster)]
    busy = [predictor.loads_us(mix) for mix in mixes]
    loads = [[one.get(r, 0.0) * rate_hz / HZ for one in busy] for r in sorted(set().union(*busy))]
    found = linprog(
        [METRICS[name].value(predictor, mix) for mix in mixes],
        A_ub=loads,
        b_ub=[1.0] * len(loads),
        A_eq=[[1.0] * len(mixes)],
        b_eq=[1.0],
    )
    assert found.status == 0
    return found.fun


@settings(max_examples=examples(20), deadline=None)
@given(
    cluster=small_clusters(4),
    share=st.sampled_from([0.3, 0.6, 0.9, 0.98]),
    name=st.sampled_from([LATENCY, ENERGY]),
)
def test_routes_may_share_the_requests_of_a_limit_of_throughput(cluster, share, name):
    limit = share * solved(cluster, THROUGHPUT)[0]
    (found,) = plan_targets(
        cluster, [Target(name=name, limits={THROUGHPUT: limit})], time_limit_s=5.0, spares=False
    )
    assert found.metrics[THROUGHPUT].predicted >= limit * (1 - SAME)
    assert found.metrics[name].bound <= least_of_mixes(cluster, name, limit) * (1 + SAME)


def test_limits_of_a_request_concern_each_route():
    cluster = with_times(cluster_of(chain(2), star(2, rtt_us=1000.0)), 1000.0)
    both = tuple(
        Share(weight=0.5, placement=dict.fromkeys(cluster.graph.atoms, node))
        for node in cluster.nodes
    )
    mean_us = METRICS[LATENCY].value(Predictor(cluster), both)
    assert "latency is" in asked(cluster, ENERGY, latency=mean_us).broken(both)
    rate = METRICS[THROUGHPUT].value(Predictor(cluster), both)
    assert not asked(cluster, ENERGY, throughput=rate).broken(both)


def test_a_throughput_within_a_limit_of_latency_is_no_mixture_of_slow_routes():
    cluster = with_times(cluster_of(chain(6), star(3, gbps=0.05)), 5000.0)
    free, _ = solved(cluster, THROUGHPUT)
    one = asked(cluster, LATENCY)
    least = METRICS[LATENCY].value(one.predictor, answer(one).mix)
    value, bound = solved(cluster, THROUGHPUT, latency=least * 1.001)
    assert value < free
    assert value <= bound * (1 + SAME)
    assert value >= brute_force(cluster, THROUGHPUT, latency=least * 1.001) * (1 - SAME)


@settings(max_examples=examples(20), deadline=None)
@given(cluster=small_clusters(5), share=st.sampled_from([0.4, 0.7, 1.0]))
def test_a_throughput_within_memories_is_no_less_than_that_of_any_placement(cluster, share):
    total = sum(cluster.graph.weight_bytes.values()) + 1.0
    tight = limited(cluster, [share * total] * len(cluster.nodes))
    best = brute_force(tight, THROUGHPUT)
    if best is None:
        with pytest.raises(ProblemError, match="does not fit"):
            solved(tight, THROUGHPUT)
        return
    value, bound = solved(tight, THROUGHPUT)
    assert best * (1 - 5e-3) <= value <= bound * (1 + SAME)


def test_a_throughput_within_memories_of_a_pipeline_that_returns_to_the_origin():
    cluster = cluster_of(chain(5), star(3, gbps=0.01, rtt_us=0.0), seed=264, classes=["x"])
    total = sum(cluster.graph.weight_bytes.values())
    tight = limited(cluster, [0.7 * total] * 3)
    value, bound = solved(tight, THROUGHPUT)
    assert brute_force(tight, THROUGHPUT) * (1 - 5e-3) <= value <= bound


@settings(max_examples=examples(20), deadline=None)
@given(cluster=small_clusters(5))
def test_a_bound_on_the_throughput_by_one_linear_programme(cluster):
    value, _ = solved(cluster, THROUGHPUT)
    assert value * (1 - SAME) <= bound_hz(asked(cluster, THROUGHPUT)) < 1e6


@pytest.mark.parametrize("limits", [{LATENCY: 1e-3}, {ENERGY: 1e-12}, {THROUGHPUT: 1e12}])
def test_impossible_limits_are_named_with_what_is_possible(limits):
    cluster = cluster_of(two_branches(), star(2))
    (name,) = limits
    with pytest.raises(
        ProblemError,
        match=rf"no placement.* keeps the limits: {name} of at (least|most) .*has {name}",
    ):
        solved(cluster, LATENCY, **limits)


def test_too_little_memory_is_named_with_place_amount_and_largest_part():
    cluster = cluster_of(chain(3), star(2, memory_bytes=[1e5, 1e6]))
    weights = {"a0": 5e5, "a1": 3e6, "a2": 2e5}
    cluster = replace(cluster, graph=replace(cluster.graph, weight_bytes=weights))
    with pytest.raises(
        ProblemError, match=r"MB missing on n\d, which has .* \(its largest part is a\d_conv, with"
    ):
        solved(cluster, LATENCY)


def test_unknown_targets_and_limits_are_refused():
    cluster = cluster_of(chain(2), star(2, watts=None))
    for name, limits, message in [
        ("speed", {}, "target 'speed': expected one of latency, throughput, energy, memory"),
        (LATENCY, {"speed": 1.0}, "target 'speed'"),
        (LATENCY, {MEMORY: 0.0}, "limit of memory: got 0; expected a number above 0"),
        (ENERGY, {}, "got no power of the nodes n0, n1; expected power_w"),
        (LATENCY, {ENERGY: 1.0}, "got no power of the nodes"),
    ]:
        with pytest.raises(ProblemError, match=message):
            plan_targets(cluster, [Target(name=name, limits=limits)])


ALL = [Target(name=name) for name in METRICS]


@settings(max_examples=examples(10), deadline=None)
@given(cluster=small_clusters(4))
def test_each_target_is_best_in_its_own_column(cluster):
    found = plan_targets(cluster, ALL, time_limit_s=5.0, spares=False)
    for one, other in itertools.product(found, found):
        name = one.target.name
        mine, theirs = one.metrics[name].predicted, other.metrics[name].predicted
        assert not METRICS[name].is_better(theirs, mine) or theirs == pytest.approx(mine)
        for metric in other.metrics.values():
            assert metric.bound is not None
        assert not METRICS[name].is_better(theirs, other.metrics[name].bound)


@settings(max_examples=examples(15), deadline=None)
@given(cluster=small_clusters(4))
def test_every_node_may_be_lost(cluster):
    (found,) = plan_targets(cluster, ALL[:1], time_limit_s=10.0)
    assert sorted(found.without) == sorted(set(cluster.nodes) - {ORIGIN})
    for lost, routes in found.without.items():
        (route,) = routes
        assert lost not in {segment.node for segment in route.segments}
        atoms = [atom for segment in route.segments for atom in segment.atoms]
        assert sorted(atoms) == sorted(cluster.graph.atoms)
        placement = {a: segment.node for segment in route.segments for a in segment.atoms}
        left = cluster.without(lost)
        value = Predictor(left).latency_us(placement)
        assert value <= brute_force(left, LATENCY) * (1 + SAME)


def test_segments_know_what_another_node_would_cost():
    cluster = cluster_of(two_branches(2), star(3))
    (found,) = plan_targets(cluster, ALL[:1], spares=False)
    predictor = Predictor(cluster)
    (route,) = found.routes
    placement = {a: segment.node for segment in route.segments for a in segment.atoms}
    for segment in route.segments:
        assert sorted(segment.elsewhere) == sorted(set(cluster.nodes) - {segment.node})
        for node, value in segment.elsewhere.items():
            moved = {**placement, **dict.fromkeys(segment.atoms, node)}
            assert value == pytest.approx(predictor.latency_us(moved))
            assert value >= found.metrics[LATENCY].bound


def statistics_of(cluster, **changes):
    return replace(cluster, routes=MessageRoutes(cluster.topology, Statistics(**changes)))


@settings(max_examples=examples(15), deadline=None)
@given(cluster=small_clusters(4), name=st.sampled_from(sorted(METRICS)))
def test_more_load_is_never_better(cluster, name):
    busy = statistics_of(cluster, nodes={cluster.nodes[-1]: NodeState(others_busy=0.7)})
    assert not_better(name, solved(busy, name), solved(cluster, name))


@settings(max_examples=examples(15), deadline=None)
@given(cluster=small_clusters(4), name=st.sampled_from(sorted(METRICS)))
def test_less_bandwidth_is_never_better(cluster, name):
    slow = statistics_of(
        cluster,
        links=tuple(
            LinkState(source=link.source, target=link.target, gbps=link.gbps / 10)
            for link in cluster.topology.links[:1]
        ),
    )
    assert not_better(name, solved(slow, name), solved(cluster, name))


def not_better(name, worse, best):
    """True if a value is no better than another one, within the gap of the solver."""
    sign = -1 if METRICS[name].maximised else 1
    return sign * worse[0] >= sign * best[0] - 0.006 * abs(best[0])


def test_an_unusably_slow_link_is_avoided():
    cluster = with_times(cluster_of(two_branches(2), star(3, gbps=10.0, rtt_us=10.0)), 50_000.0)
    one = asked(cluster, LATENCY)
    assert {"n1", "n2"} & set(answer(one).mix[0].placement.values())
    cut = statistics_of(
        cluster, links=(LinkState(source="n1", target="sw", gbps=1e-6, rtt_us=1e7),)
    )
    for name in (LATENCY, THROUGHPUT, ENERGY):
        one = asked(cut, name)
        for share in answer(one).mix:
            assert share.weight < 1e-3 or "n1" not in share.placement.values()


def test_branches_overlap_on_two_nodes():
    cluster = with_times(cluster_of(two_branches(3), star(2, gbps=10.0, rtt_us=10.0)), 10_000.0)
    one = asked(cluster, LATENCY)
    found = answer(one)
    value = METRICS[LATENCY].value(one.predictor, found.mix)
    assert value < 8 * 10_000.0  # eight atoms in a row
    assert value == pytest.approx(5 * 10_000.0, rel=0.02)
