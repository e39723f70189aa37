"""Problem of a cluster: prices from first principles, memory by replay, equal atoms contracted losslessly."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutsel.cluster.memory import peaks
from layoutsel.cluster.metrics import Predictor, alone
from layoutsel.cluster.problem import contract
from layoutsel.cluster.routes import routes_of
from layoutsel.cluster.statistics import NodeState, Statistics
from layoutsel.planning.problem import ProblemError
from tests.cluster.clusters import (
    ORIGIN,
    chain,
    cluster_of,
    every_placement,
    small_clusters,
    star,
    two_branches,
    with_times,
)
from tests.planning.problems import graph_problem, random_parents


def some_placement(cluster, seed):
    rng = random.Random(seed)
    return {atom: rng.choice(cluster.nodes) for atom in cluster.graph.atoms}


def makers_and_readers(cluster, placement, tensor):
    maker = ORIGIN if tensor.producer is None else placement[tensor.producer]
    readers = {ORIGIN if u.consumer is None else placement[u.consumer] for u in tensor.uses}
    return maker, readers


@settings(deadline=None)
@given(cluster=small_clusters(), seed=st.integers(0, 99))
def test_a_placement_costs_its_atoms_and_each_tensor_once_per_reading_node(cluster, seed):
    placement = some_placement(cluster, seed)
    expected = sum(
        cluster.costs[cluster.classes[node]].us[atom] for atom, node in placement.items()
    )
    for tensor in cluster.graph.tensors:
        maker, readers = makers_and_readers(cluster, placement, tensor)
        for node in readers - {maker}:
            expected += cluster.routes.route(maker, node).us(tensor.bytes)
            is_read = any(use.consumer is not None for use in tensor.uses)
            if tensor.producer is not None and is_read:
                repack = cluster.costs[cluster.classes[node]].repack_us
                expected += repack.get(cluster.classes[maker], {}).get(tensor.name, 0.0)
    found = cluster.problem.cost(cluster.decisions(placement)).total_us
    assert found == pytest.approx(expected)
    assert cluster.placement(cluster.decisions(placement)) == placement


def test_statistics_slow_nodes_down_and_widen_their_spread():
    now = Statistics(nodes={"n1": NodeState(others_busy=0.5, age_s=30.0)})
    idle, busy = (cluster_of(chain(2), star(2), statistics=one) for one in (None, now))
    assert busy.option("a0", "n1").cost_us == pytest.approx(2 * idle.option("a0", "n1").cost_us)
    assert busy.option("a0", "n0") == idle.option("a0", "n0")
    grown = busy.option("a0", "n1").spread_us - 2 * idle.option("a0", "n1").spread_us
    assert grown == pytest.approx(0.1 * busy.option("a0", "n1").cost_us)


def test_the_smallest_memory_counts():
    now = Statistics(nodes={"n1": NodeState(free_bytes=2e6)})
    cluster = cluster_of(chain(2), star(3, memory_bytes=[None, 3e6, 4e6]), statistics=now)
    assert [cluster.capacity(node) for node in ("n0", "n1", "n2")] == [None, 2e6, 4e6]
    assert replace(cluster, most_bytes=1e6).capacity("n0") == 1e6


def test_no_network_is_left_without_the_origin():
    cluster = cluster_of(chain(2), star(2))
    assert cluster.without("n1").nodes == (ORIGIN,)
    with pytest.raises(ProblemError, match="'n0' is the origin"):
        cluster.without(ORIGIN)


def replayed(cluster, placement):  # noqa: C901, PLR0912 - one branch for each event
    """Peaks by replaying the atoms in order, tensors being freed when no local reader is left."""
    graph = cluster.graph
    weights = dict.fromkeys(cluster.nodes, 0.0)
    for atom, node in placement.items():
        weights[node] += graph.weight_bytes[atom]
    peak = dict.fromkeys(cluster.nodes, 0.0)
    held = {node: {} for node in cluster.nodes}
    order = list(graph.atoms)
    pending = {
        (tensor.name, node): [
            a for a in order if a in {u.consumer for u in tensor.uses} and placement[a] == node
        ]
        for tensor in graph.tensors
        for node in cluster.nodes
    }
    for tensor in graph.tensors:
        if tensor.producer is None:
            for node in cluster.nodes:
                if pending[tensor.name, node]:
                    held[node][tensor.name] = tensor.bytes
    for atom in order:
        here = placement[atom]
        for tensor in graph.tensors:
            if tensor.producer == atom:
                _, readers = makers_and_readers(cluster, placement, tensor)
                for node in {here, *(n for n in readers if pending[tensor.name, n])}:
                    held[node][tensor.name] = tensor.bytes
        for node in cluster.nodes:
            inner = graph.inner_bytes.get(atom, 0.0) if node == here else 0.0
            peak[node] = max(peak[node], sum(held[node].values()) + inner)
        for tensor in graph.tensors:
            for node in cluster.nodes:
                left = pending[tensor.name, node]
                if atom in left:
                    left.remove(atom)
                if not left and (atom == tensor.producer or tensor.name in held[node]):
                    held[node].pop(tensor.name, None)
    used = set(placement.values())
    kept = sum(
        tensor.bytes
        for tensor in graph.tensors
        if tensor.producer is None or any(u.consumer is None for u in tensor.uses)
    )
    return {
        node: weights[node] + (peak[node] if node in used else 0.0) + kept * (node == ORIGIN)
        for node in cluster.nodes
    }


@settings(deadline=None)
@given(cluster=small_clusters(), seed=st.integers(0, 99))
def test_peaks_are_those_of_a_replay(cluster, seed):
    placement = some_placement(cluster, seed)
    assert peaks(cluster, [placement]) == pytest.approx(replayed(cluster, placement))


def test_routes_share_the_weights_of_their_nodes():
    cluster = cluster_of(chain(2), star(2))
    both = [dict.fromkeys(cluster.graph.atoms, node) for node in cluster.nodes]
    alone_ = peaks(cluster, both[:1])[ORIGIN]
    assert peaks(cluster, [both[0], both[0]])[ORIGIN] == alone_
    assert peaks(cluster, both)["n1"] == pytest.approx(peaks(cluster, both[1:])["n1"])


@settings(deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(2, 9), parts=st.integers(1, 4))
def test_contracted_networks_send_the_same_tensors(seed, count, parts):
    rng = random.Random(seed)
    problem = graph_problem(random_parents(count, rng, reach=3), rng)
    ids = [node.id for node in problem.nodes]
    cuts = sorted(rng.sample(range(1, count), min(parts, count - 1)))
    bounds = [0, *cuts, count]
    atoms = {f"a{i}": tuple(ids[a:b]) for i, (a, b) in enumerate(itertools.pairwise(bounds))}
    weights = {id_: float(rng.randrange(1000)) for id_ in ids}
    graph = contract(atoms, problem.tensors, weights)
    home = {id_: atom for atom, held in atoms.items() for id_ in held}
    crossing = {
        (tensor.name, atom)
        for tensor in problem.tensors
        for use in tensor.uses
        for atom in [use.consumer and home[use.consumer]]
        if atom is None or tensor.producer is None or home[tensor.producer] != atom
    }
    assert crossing == {(graph.name(t), u.consumer) for t in graph.tensors for u in t.uses}
    assert sum(graph.weight_bytes.values()) == pytest.approx(sum(weights.values()))
    assert len({tensor.name for tensor in graph.tensors}) == len(graph.tensors)


@settings(deadline=None)
@given(cluster=small_clusters(), seed=st.integers(0, 99))
def test_segments_run_every_atom_once_after_those_they_read(cluster, seed):
    placement = some_placement(cluster, seed)
    (route,) = routes_of(Predictor(cluster), alone(placement))
    made = set()
    atoms = []
    for segment in route.segments:
        assert {placement[atom] for atom in segment.atoms} == {segment.node}
        assert all(name.startswith("input.") or name in made for name in segment.inputs)
        made |= set(segment.outputs)
        atoms += segment.atoms
    assert sorted(atoms) == sorted(cluster.graph.atoms)
    results = [u for t in cluster.graph.tensors for u in t.uses if u.consumer is None]
    assert {f"output.{use.input_index}" for use in results} <= made
    sent_us = sum(transfer.us for transfer in route.transfers)
    total_us = sum(segment.us for segment in route.segments) + sent_us
    cost_us = cluster.problem.cost(cluster.decisions(placement)).total_us
    consumers = [{use.consumer for use in tensor.uses} for tensor in cluster.graph.tensors]
    if any(None in some and len(some) > 1 for some in consumers):
        # The origin counts as transforming a result that other nodes read as well.
        assert total_us <= cost_us + 1e-6
    else:
        assert total_us == pytest.approx(cost_us)


def test_a_segment_ends_where_another_node_waits():
    cluster = with_times(cluster_of(two_branches(), star(2)), 1000.0)
    placement = {"a0": "n0", "a1": "n0", "a2": "n1", "a3": "n0"}
    (route,) = routes_of(Predictor(cluster), alone(placement))
    assert [(one.node, one.atoms) for one in route.segments] == [
        ("n0", ("a0",)),
        ("n1", ("a2",)),
        ("n0", ("a1",)),
        ("n0", ("a3",)),
    ]
    assert len(list(every_placement(cluster))) == 16
