"""Schedules of plans whose devices work while the host does, and the bound on them."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import graph_problem, option, price_tensors, small_problems, tensors_between
from tiers import examples, tiered

from layoutsel.cost.place import HOST
from layoutsel.planning.chains import chains
from layoutsel.planning.makespan import schedule
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.problem import PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import solve
from tvm_passes.decision import SubgraphId

SLACK_US = 1e-6

UNITS = ("cpu", "opencl")


def every_plan(problem: PlanningProblem):
    """All choices of decisions."""
    for options in itertools.product(*(node.options for node in problem.nodes)):
        yield {
            node.id: option.decision for node, option in zip(problem.nodes, options, strict=True)
        }


def memory(problem: PlanningProblem, decisions, id_):
    return problem.by_id[id_].option(decisions[id_]).memory


@given(problem=small_problems(), seed=st.integers(0, 1000))
def test_a_schedule_keeps_to_the_order_and_to_its_processors(problem, seed):
    plans = list(every_plan(problem))
    decisions = plans[seed % len(plans)]
    found = schedule(problem, decisions)
    assert sorted(found.order) == sorted(problem.by_id)
    position = {id_: index for index, id_ in enumerate(found.order)}
    ends = {span.name: span for span in found.spans}
    for tensor in problem.tensors:
        for use in tensor.uses:
            if tensor.producer is not None and use.consumer is not None:
                assert position[tensor.producer] < position[use.consumer]
                assert ends[tensor.producer].end_us <= ends[use.consumer].start_us + SLACK_US
    for place in {place for span in found.spans for place in span.places}:
        busy = [span for span in found.spans if place in span.places]
        for before, after in itertools.pairwise(busy):
            assert before.end_us <= after.start_us + SLACK_US


@given(problem=small_problems(), seed=st.integers(0, 1000))
def test_the_host_alone_takes_the_sum(problem, seed):
    plans = list(every_plan(problem))
    decisions = plans[seed % len(plans)]
    if any(memory(problem, decisions, id_) != HOST for id_ in problem.by_id):
        return
    us = schedule(problem, decisions).makespan_us
    assert us == pytest.approx(problem.cost(decisions).total_us)


@settings(max_examples=examples(60), deadline=None)
@given(problem=small_problems())
def test_no_plan_is_shorter_than_the_bound_and_the_search_is_no_worse_than_its_start(problem):
    best_us = min(schedule(problem, decisions).makespan_us for decisions in every_plan(problem))
    first = solve(problem).decisions
    found = solve_parallel(problem, first)
    assert relaxed(problem).bound_us <= best_us + SLACK_US
    assert found.bound_us <= best_us + SLACK_US
    assert best_us - SLACK_US <= found.schedule.makespan_us
    assert found.schedule.makespan_us <= schedule(problem, first).makespan_us + SLACK_US
    assert schedule(problem, found.decisions) == found.schedule


def fork(branches: int, length: int) -> PlanningProblem:
    """A stem, chains that all read it, and what joins them; copies are cheap."""
    parents, ends = [[-1]], []
    for _ in range(branches):
        parents.append([0])
        parents.extend([len(parents) - 1] for _ in range(length - 1))
        ends.append(len(parents) - 1)
    parents.append(ends)
    return graph_problem(parents, random.Random(7), layouts=("NCHW",), units=UNITS)


def test_branches_go_to_both():
    problem = fork(branches=2, length=4)
    first = solve(problem)
    found = solve_parallel(problem, first.decisions)
    best_us = min(schedule(problem, decisions).makespan_us for decisions in every_plan(problem))
    assert found.schedule.makespan_us < 1.05 * best_us
    assert found.schedule.makespan_us < 0.85 * first.cost_us
    memories = {memory(problem, found.decisions, id_) for id_ in problem.by_id}
    assert memories == {"opencl", HOST}
    at_once = [
        (one, other)
        for one, other in itertools.combinations(found.schedule.spans, 2)
        if min(one.end_us, other.end_us) > max(one.start_us, other.start_us) + SLACK_US
    ]
    assert at_once


@pytest.mark.parametrize("seed", tiered(range(70), (9, 60)))
def test_two_chains_that_have_to_change_places(seed):
    """The best plan is often two moves away from every plan that the search starts with."""
    parents = [[-1], [0], [1], [2], [0], [4], [5], [3, 6]]
    problem = graph_problem(parents, random.Random(seed), layouts=("NCHW",), units=UNITS)
    best_us = min(schedule(problem, decisions).makespan_us for decisions in every_plan(problem))
    found = solve_parallel(problem, solve(problem).decisions)
    assert found.schedule.makespan_us < 1.001 * best_us


def test_chains_end_where_a_network_branches_or_joins():
    found = chains(fork(branches=2, length=3))
    names = [[SubgraphId(f"s{i}") for i in chain] for chain in ((1, 2, 3), (4, 5, 6))]
    assert found[:2] == names
    assert sorted(map(len, found[2:])) == [1, 1]


def test_a_network_of_hundreds_is_scheduled_within_the_time_limit():
    rng = random.Random(3)
    parents = [[-1]] + [[max(0, i - rng.randint(1, 4)) for _ in range(2)] for i in range(1, 150)]
    problem = graph_problem(parents, rng, units=UNITS)
    found = solve_parallel(problem, solve(problem).decisions, time_limit_s=5.0)
    assert 0 < found.bound_us <= found.schedule.makespan_us


def modules(count: int, branches: int) -> PlanningProblem:
    """Branches of two sub-graphs that are joined, and again."""
    parents = [[-1]]
    for _ in range(count):
        stem, ends = len(parents) - 1, []
        for _ in range(branches):
            parents += [[stem], [len(parents)]]
            ends.append(len(parents) - 1)
        parents.append(ends)
    return graph_problem(parents, random.Random(11), layouts=("NCHW",), units=UNITS)


def test_where_branches_join_the_search_comes_near_the_best_and_so_does_the_bound():
    problem = modules(count=2, branches=2)
    best_us = min(schedule(problem, decisions).makespan_us for decisions in every_plan(problem))
    found = solve_parallel(problem, solve(problem).decisions)
    assert found.schedule.makespan_us < 1.01 * best_us
    assert found.bound_us > 0.9 * best_us


def given_costs(parents, costs, copy_us: float) -> PlanningProblem:
    """Sub-graphs that read `parents` (-1 is the input), each with its µs on the CPU and on the device."""
    ids = [SubgraphId(f"s{i}") for i in range(len(parents))]
    nodes = [
        PricedSubgraph(
            id=id_,
            options=tuple(
                option(unit, "NCHW", us, inputs=len(sources))
                for unit, us in zip(UNITS, both, strict=True)
            ),
        )
        for id_, sources, both in zip(ids, parents, costs, strict=True)
    ]
    tensors = tensors_between(ids, parents)
    free = lambda *_: 0.0  # noqa: E731 - three prices, two of them nothing
    priced = price_tensors(tensors, nodes, free, free, lambda *_: copy_us)
    return PlanningProblem(nodes=tuple(nodes), tensors=priced)


FORK = [[-1], [0], [0], [1, 2]]


def test_the_bound_knows_that_a_processor_cannot_help_behind_a_join():
    """Two branches that the device is good at, then two that the CPU is good at."""
    device, host, either = (1000.0, 10.0), (10.0, 1000.0), (1.0, 1.0)
    parents = [*FORK, [3], [3], [4, 5]]
    problem = given_costs(parents, [either, device, device, either, host, host, either], 0.5)
    best_us = min(schedule(problem, plan).makespan_us for plan in every_plan(problem))
    assert best_us > 40
    assert relaxed(problem).bound_us > 0.95 * best_us


def test_the_bound_knows_what_copies_cost():
    """Two branches that either is good at, where half of the work is hardly worth the copies."""
    problem = given_costs(FORK, [(1.0, 9.0), (10.0, 10.0), (10.0, 10.0), (1.0, 9.0)], 4.0)
    best_us = min(schedule(problem, plan).makespan_us for plan in every_plan(problem))
    assert best_us == pytest.approx(20.0)
    assert relaxed(problem).bound_us > 0.99 * best_us
