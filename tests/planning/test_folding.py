"""Problems of many devices: what solvers get stays small, and bounds hold for all devices."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import brute_force, graph_problem, random_parents, residual_chain, twinned

from layoutsel.planning import programme
from layoutsel.planning.calls import memories_of
from layoutsel.planning.folding import MOST_MEMORIES, folded, on_best_devices, relaxed_if_wide
from layoutsel.planning.makespan import Scheduler
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import solve
from layoutsel.planning.symmetry import without_twins

SLACK_US = 1e-6
FORK = [[-1], [0], [0], [0], [1, 2, 3]]


def several(parents, count: int, *, seed: int = 0, layouts=("NCHW",)) -> PlanningProblem:
    """A host and `count` devices, all different."""
    units = ("cpu", "opencl", *(f"opencl@{index}" for index in range(1, count)))
    return graph_problem(parents, random.Random(seed), layouts=layouts, units=units)


def shortest_us(problem: PlanningProblem) -> float:
    """Least makespan of the list schedules of all plans."""
    scheduler = Scheduler(problem)
    return min(
        scheduler.schedule(
            {node.id: o.decision for node, o in zip(problem.nodes, options, strict=True)}
        ).makespan_us
        for options in itertools.product(*(node.options for node in problem.nodes))
    )


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_no_plan_is_better_than_the_best_one_on_the_folded_device(seed):
    rng = random.Random(seed)
    problem = several(random_parents(4, rng, reach=3), 3, seed=seed)
    narrow = folded(problem)
    assert memories_of(narrow) == ("host", "opencl")
    assert narrow.stands_for == {"opencl": 3}
    assert solve(narrow).bound_us <= brute_force(problem) + SLACK_US
    assert relaxed(narrow).bound_us <= shortest_us(problem) + SLACK_US


def test_a_bound_holds_for_devices_that_have_no_candidates():
    problem = twinned(
        graph_problem(FORK, random.Random(0), layouts=("NCHW",), units=("opencl",)), 3
    )
    best_us = shortest_us(problem)
    alone = without_twins(problem)
    assert relaxed(alone).bound_us > best_us + SLACK_US
    bound_us = relaxed(replace(alone, stands_for={"opencl": 3})).bound_us
    assert 0.5 * best_us < bound_us <= best_us + SLACK_US


def test_few_memories_are_left_as_they_are():
    assert relaxed_if_wide(several(FORK, MOST_MEMORIES - 1)) is None
    assert relaxed_if_wide(several(FORK, MOST_MEMORIES)) is not None


def test_nodes_of_a_cluster_are_not_taken_together():
    units = [f"cpu@edge{number}/0" for number in range(2 * MOST_MEMORIES)]
    problem = graph_problem(FORK, random.Random(0), layouts=("NCHW",), units=("cpu", *units))
    assert relaxed_if_wide(problem) is None


def test_the_devices_that_compute_most_cheaply_stay():
    problem = several(FORK, 20)
    cheap = {f"opencl/{index}" for index in (3, 8, 19)}
    nodes = tuple(
        replace(
            node,
            options=tuple(
                replace(o, cost_us=o.cost_us / 100) if o.memory in cheap else o
                for o in node.options
            ),
        )
        for node in problem.nodes
    )
    kept = memories_of(on_best_devices(replace(problem, nodes=nodes)))
    assert len(kept) == MOST_MEMORIES
    assert cheap <= set(kept)
    assert "host" in kept


@pytest.fixture(name="sizes")
def sizes_fixture(monkeypatch) -> list[int]:
    """Numbers of variables of all integer programmes."""
    sizes: list[int] = []
    minimised = programme.Programme.minimised

    def counted(self, **options):
        sizes.append(len(self.objective))
        return minimised(self, **options)

    monkeypatch.setattr(programme.Programme, "minimised", counted)
    return sizes


@pytest.mark.parametrize("count", [16, 32])
def test_integer_programmes_do_not_grow_with_the_number_of_devices(count, sizes):
    problem = several(residual_chain(8), count, layouts=("NCHW", "NHWC"))
    first = solve(problem)
    assert 0 < first.bound_us <= first.cost_us
    assert first.gap < 0.5
    found = solve_parallel(problem, first.decisions, time_limit_s=30.0)
    assert 0 < found.bound_us <= found.schedule.makespan_us + SLACK_US
    assert found.schedule.makespan_us <= Scheduler(problem).schedule(first.decisions).makespan_us
    assert max(sizes) < 20_000


def test_tensors_with_many_labels_take_no_sets_of_all_of_them():
    """Sets of labels of seven different devices filled the memory once."""
    problem = several([[-1], [0], [0], [0], [1, 2, 3]], 7, layouts=("NCHW", "NHWC", "NCHW16c"))
    found = solve(problem, solver="dual")
    assert found.bound_us <= solve(problem).cost_us + SLACK_US
