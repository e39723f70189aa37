"""Loads and mixtures of placements, against enumeration of all placements."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from tiers import examples

from layoutsel.planning.columns import best_mixture
from layoutsel.planning.loads import LoadTables, Rooms, loads
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.tables import to_choice
from tests.planning.problems import small_problems
from tests.planning.test_resources import Network, two_branches


def placements(problem: PlanningProblem):
    ids = [node.id for node in problem.nodes]
    offers = [[option.decision for option in node.options] for node in problem.nodes]
    return [dict(zip(ids, choice, strict=True)) for choice in itertools.product(*offers)]


def counted(problem: PlanningProblem, decisions) -> dict[str, float]:
    """Loads from the parts of the plan's cost, which know memories only of copies."""
    memory = {id_: problem.by_id[id_].option(one).memory for id_, one in decisions.items()}
    cost = problem.cost(decisions)
    steps = [
        problem.resources.compute(decisions[id_].unit, memory[id_], us)
        for id_, us in cost.subgraphs.items()
    ]
    for one in cost.boundaries:
        home = memory.get(one.tensor.rpartition(".")[0], "host")
        ends = (one.source, one.destination) if one.kind == "copy" else (home, home)
        steps.extend(problem.resources.boundary(one.kind, *ends, one.cost_us))
    found: dict[str, float] = {}
    for step in steps:
        for name, us in step.busy_us.items():
            found[name] = found.get(name, 0.0) + us
    return found


def enumerated(problem: PlanningProblem) -> float:
    """Greatest throughput of mixtures of all placements, requests per microsecond."""
    found = [counted(problem, one) for one in placements(problem)]
    names = sorted({name for one in found for name in one})
    matrix = np.array([[one.get(name, 0.0) for one in found] for name in names])
    return -linprog(-np.ones(len(found)), A_ub=matrix, b_ub=np.ones(len(names))).fun


networks = st.sampled_from([None, Network(3.0)])


def on(problem: PlanningProblem, network) -> PlanningProblem:
    return problem if network is None else replace(problem, resources=network)


@settings(max_examples=examples(40), deadline=None)
@given(small_problems(), networks, st.integers(0, 2**32))
def test_loads_are_those_of_the_parts_of_a_plan(problem, network, seed):
    problem = on(problem, network)
    tables = LoadTables(problem)
    rng = np.random.default_rng(seed)
    prices = rng.random(len(tables.resources))
    weighted = tables.weighted(prices)
    for decisions in placements(problem)[:: max(1, len(placements(problem)) // 20)]:
        expected = counted(problem, decisions)
        found = loads(problem, decisions)
        assert {n: us for n, us in found.items() if us} == pytest.approx(
            {n: us for n, us in expected.items() if us}
        )
        choice = to_choice(problem, decisions)
        row = tables.loads(choice)
        by_name = dict(zip(tables.resources, row, strict=True))
        assert {n: us for n, us in by_name.items() if us} == pytest.approx(
            {n: us for n, us in expected.items() if us}
        )
        assert weighted.total(choice) == pytest.approx(float(row @ prices))


@settings(max_examples=examples(60), deadline=None)
@given(small_problems(), networks)
def test_the_best_mixture_of_all_placements(problem, network):
    problem = on(problem, network)
    best = enumerated(problem)
    found = best_mixture(problem, gap=1e-6)
    assert found.throughput <= best * (1 + 1e-6) <= found.bound * (1 + 2e-6)
    assert found.throughput == pytest.approx(best, rel=1e-5)


@settings(max_examples=examples(30), deadline=None)
@given(small_problems(), networks)
def test_a_mixture_fits_its_resources(problem, network):
    problem = on(problem, network)
    found = best_mixture(problem)
    total: dict[str, float] = {}
    for rate, decisions in zip(found.rates, found.placements, strict=True):
        for name, us in counted(problem, decisions).items():
            total[name] = total.get(name, 0.0) + rate * us
    assert max(total.values()) <= 1 + 1e-6
    single = max(1 / max(counted(problem, one).values()) for one in placements(problem))
    assert found.throughput >= single * (1 - 2e-3)


@settings(max_examples=examples(20), deadline=None)
@given(small_problems(), st.floats(1.5, 4.0))
def test_more_capacity_is_never_worse(problem, factor):
    names = LoadTables(problem).resources
    less = best_mixture(problem)
    more = best_mixture(problem, capacity={names[0]: factor})
    assert more.bound >= less.throughput * (1 - 1e-9)
    every = best_mixture(problem, capacity=dict.fromkeys(names, factor))
    assert every.bound >= factor * less.throughput * (1 - 1e-9)
    assert every.throughput <= factor * less.bound * (1 + 1e-9)


def test_two_equal_nodes_share_the_requests():
    """Each sub-graph takes 10 µs; the network on one node takes 30 µs, and two copies on the other."""
    found = best_mixture(two_branches())
    alone = {frozenset(d.unit for d in one.values()) for one in found.placements}
    assert found.gap < 1e-3
    assert 1 / 15.5 < found.throughput <= 2 / 30 + 1e-9
    assert frozenset({"cpu"}) in alone


def test_work_that_takes_no_time_has_no_throughput():
    problem = two_branches()
    free = replace(
        problem,
        nodes=tuple(
            replace(n, options=tuple(replace(o, cost_us=0.0) for o in n.options))
            for n in problem.nodes
        ),
    )
    with pytest.raises(ProblemError, match="occupies no resource"):
        best_mixture(free)


def limited(problem: PlanningProblem, seed: int) -> Rooms:
    """Rooms that hold all sub-graphs together, with little to spare."""
    rng = np.random.default_rng(seed)
    held = {node.id: float(rng.integers(0, 5)) for node in problem.nodes}
    memories = sorted({o.memory for node in problem.nodes for o in node.options})
    room = max(4.0, 1.3 * sum(held.values()) / len(memories))
    return Rooms(held_bytes=held, room_bytes=dict.fromkeys(memories, room))


def needed(problem: PlanningProblem, rooms: Rooms, mixture) -> dict[str, float]:
    """Bytes that a mixture occupies in each memory."""
    kept = {
        (id_, problem.by_id[id_].option(one).memory)
        for decisions in mixture
        for id_, one in decisions.items()
    }
    found: dict[str, float] = {}
    for id_, memory in kept:
        found[memory] = found.get(memory, 0.0) + rooms.held_bytes[id_]
    return found


@settings(max_examples=examples(40), deadline=None)
@given(small_problems(), networks, st.integers(0, 2**32))
def test_a_mixture_fits_its_memories(problem, network, seed):
    problem = on(problem, network)
    rooms = limited(problem, seed)
    single = [
        1 / max(counted(problem, one).values())
        for one in placements(problem)
        if all(
            needed(problem, rooms, [one])[m] <= rooms.room_bytes[m]
            for m in needed(problem, rooms, [one])
        )
    ]
    if not single:
        return
    found = best_mixture(problem, rooms=rooms)
    for memory, size in needed(problem, rooms, found.placements).items():
        assert size <= rooms.room_bytes[memory] * (1 + 1e-6)
    total: dict[str, float] = {}
    for rate, decisions in zip(found.rates, found.placements, strict=True):
        for name, us in counted(problem, decisions).items():
            total[name] = total.get(name, 0.0) + rate * us
    assert max(total.values()) <= 1 + 1e-6
    assert found.bound >= max(single) * (1 - 1e-6)
    assert found.throughput <= found.bound * (1 + 1e-9)


def test_without_room_the_error_says_how_much_there_is():
    problem = two_branches()
    rooms = Rooms(
        held_bytes={node.id: 3e6 for node in problem.nodes},
        room_bytes={"host": 4e6, "opencl": 4e6},
    )
    with pytest.raises(ProblemError, match=r"occupy 9 MB.*host, opencl have 8 MB"):
        best_mixture(problem, rooms=rooms)
