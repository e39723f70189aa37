"""The wider bound holds for distributions of any class plans; atoms cost what their stages would."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from layoutsel.cluster.class_costs import ClassProblem, class_costs
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.metrics import ENERGY, LATENCY, METRICS, THROUGHPUT, Predictor, alone
from layoutsel.cluster.problem import Cluster, contract
from layoutsel.cluster.statistics import NodeState, Statistics
from layoutsel.cluster.wider import relaxed_problem, wider_bounds
from layoutsel.planning.solve import solve
from tests.cluster.clusters import every_placement, star
from tests.planning.problems import graph_problem, random_parents

SAME = 1e-6


def networks(seed, count, classes):
    """One network with other prices in each class, and a random plan of each."""
    rng = random.Random(seed)
    parents = random_parents(count, rng, reach=3)
    found = {}
    for name in classes:
        problem = graph_problem(parents, rng, layouts=("NCHW", "NHWC"), scale=400.0)
        sizes = (
            {tensor.name: tensor.bytes for tensor in next(iter(found.values())).problem.tensors}
            if found
            else {}
        )
        tensors = tuple(replace(t, bytes=sizes.get(t.name, t.bytes)) for t in problem.tensors)
        decisions = {node.id: rng.choice(node.options).decision for node in problem.nodes}
        found[name] = ClassProblem(problem=replace(problem, tensors=tensors), decisions=decisions)
    return found


def cluster_with(classes, topology, atoms, seed, statistics=None):
    """The network over a topology whose nodes take the classes in turn."""
    rng = random.Random(seed)
    problem = next(iter(classes.values())).problem
    graph = contract(atoms, problem.tensors, {})
    costs = class_costs(graph, classes, lambda _, asked: [rng.uniform(0, 300.0) for _ in asked])
    names = list(classes)
    nodes = [node.id for node in topology.computing]
    return Cluster(
        graph=graph,
        classes={node: names[i % len(names)] for i, node in enumerate(nodes)},
        costs=costs,
        routes=MessageRoutes(topology, statistics),
    )


def in_pairs(classes):
    """Atoms of two sub-graphs each, in order."""
    ids = [node.id for node in next(iter(classes.values())).problem.nodes]
    return {f"a{i}": tuple(ids[i : i + 2]) for i in range(0, len(ids), 2)}


@settings(max_examples=examples(30), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 5),
    kinds=st.integers(1, 2),
    busy=st.sampled_from([0.0, 0.5]),
)
def test_no_distribution_is_better_than_the_wider_bound(seed, count, kinds, busy):
    classes = networks(seed, count, ["x", "y"][:kinds])
    now = Statistics(nodes={"n1": NodeState(others_busy=busy)})
    topology = star(2, gbps=random.Random(seed).choice([0.1, 10.0]), rtt_us=30.0, nj_per_byte=5.0)
    cluster = cluster_with(classes, topology, in_pairs(classes), seed, now)
    bounds = wider_bounds(cluster, classes, [LATENCY, THROUGHPUT, ENERGY], time_limit_s=20.0)
    predictor = Predictor(cluster)
    for placement in every_placement(cluster):
        for name, bound in bounds.items():
            value = METRICS[name].value(predictor, alone(placement))
            assert not METRICS[name].is_better(
                value * (1 + SAME) if not METRICS[name].maximised else value * (1 - SAME), bound
            )


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6))
def test_one_node_with_its_best_plan_attains_the_bound_of_free_hand_overs(seed, count):
    (problem,) = (one.problem for one in networks(seed, count, ["x"]).values())
    free = replace(
        problem,
        tensors=tuple(
            replace(t, crossing_us=dict.fromkeys(t.crossing_us, 0.0)) for t in problem.tensors
        ),
    )
    best = solve(free)
    classes = {"x": ClassProblem(problem=free, decisions=best.decisions)}
    cluster = cluster_with(classes, star(1), in_pairs(classes), seed)
    assert solve(relaxed_problem(cluster, classes)).cost_us <= best.cost_us * (1 + SAME)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6))
def test_one_atom_costs_what_the_whole_plan_costs(seed, count):
    classes = networks(seed, count, ["x"])
    (one,) = classes.values()
    whole = {"a0": tuple(node.id for node in one.problem.nodes)}
    cluster = cluster_with(classes, star(1), whole, seed)
    assert cluster.costs["x"].us["a0"] == pytest.approx(one.problem.cost(one.decisions).total_us)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 6))
def test_stages_that_transform_for_themselves_cost_no_less_than_the_plan(seed, count):
    classes = networks(seed, count, ["x"])
    (one,) = classes.values()
    cluster = cluster_with(classes, star(1), in_pairs(classes), seed)
    total = sum(cluster.costs["x"].us.values())
    plan = one.problem.cost(one.decisions)
    boundaries = sum(boundary.cost_us for boundary in plan.boundaries)
    assert plan.total_us * (1 - SAME) <= total <= plan.total_us + count * boundaries + SAME
