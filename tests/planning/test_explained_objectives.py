"""Explanations and the value of information follow the problem's objective, not the sum."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from layoutsel.core.precision import REL_ERROR
from layoutsel.cost.place import HOST
from layoutsel.planning.explain import explain
from layoutsel.planning.hybrid import refine
from layoutsel.planning.makespan import schedule
from layoutsel.planning.objectives import decide, objective_of
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import solve
from layoutsel.planning.trade_off import squared_error
from layoutsel.planning.value_of_information import reprice, value_of_information
from layoutsel.planning.values import MAKESPAN, WITHIN_ERROR
from tests.planning.problems import graph_problem, small_problems
from tests.planning.test_trade_off import problems as problems_of_precisions
from tvm_passes.decision import Decision, SubgraphId

Decisions = dict[SubgraphId, Decision]


def by_makespan(problem: PlanningProblem) -> tuple[PlanningProblem, Decisions]:
    problem = replace(problem, objective=MAKESPAN)
    return problem, dict(decide(problem, time_limit_s=2.0).solution.decisions)


def fork() -> PlanningProblem:
    """Two branches of three sub-graphs between a stem and a join, on a host and a device."""
    parents = [[-1], [0], [1], [2], [0], [4], [5], [3, 6]]
    return graph_problem(parents, random.Random(7), layouts=("NCHW",), units=("cpu", "opencl"))


@settings(max_examples=examples(15), deadline=None)
@given(small_problems())
def test_extras_of_a_parallel_plan_are_differences_of_makespans(problem):
    problem, decisions = by_makespan(problem)
    now_us = schedule(problem, decisions).makespan_us
    plans = [(plan, schedule(problem, plan).makespan_us) for plan in every_plan(problem)]
    explanation = explain(problem, decisions, time_limit_s=3)
    assert not explanation.exact
    for subgraph in explanation.subgraphs:
        ranks = [other.rank for other in subgraph.alternatives]
        assert ranks == sorted(ranks)
        for other in subgraph.alternatives:
            alone = {**decisions, subgraph.id: other.decision}
            least = min(us for plan, us in plans if plan[subgraph.id] == other.decision)
            alone_us = schedule(problem, alone).makespan_us
            assert least - 1e-6 <= now_us + other.extra <= alone_us + 1e-6
            if other.others == 0:
                assert other.extra == pytest.approx(alone_us - now_us)
                sums = [problem.cost(plan).total_us for plan in (alone, decisions)]
                assert other.extra_us == pytest.approx(sums[0] - sums[1], abs=1e-6)
            assert other.excess == 0


def test_gains_of_a_parallel_plan_are_makespans():
    problem, decisions = by_makespan(fork())
    gains = explain(problem, decisions).gains
    assert gains.plan_us == schedule(problem, decisions).makespan_us
    assert gains.plan_us < problem.cost(decisions).total_us
    assert gains.joint_us <= min(gains.score_us, gains.layouts_alone_us, gains.units_alone_us)
    one_unit = problem.restrict(lambda _, o: o.decision.unit == gains.layouts_alone_unit)
    least = solve(one_unit).decisions
    assert gains.layouts_alone_us <= schedule(problem, least).makespan_us + 1e-6


def every_plan(problem: PlanningProblem):
    for options in itertools.product(*(node.options for node in problem.nodes)):
        yield {n.id: o.decision for n, o in zip(problem.nodes, options, strict=True)}


@settings(max_examples=examples(25), deadline=None)
@given(problem=problems_of_precisions(), limit=st.sampled_from([1e-5, 2e-3, 3e-3]))
def test_explanations_within_an_error_budget_keep_it_or_say_so(problem, limit):
    problem = replace(problem, objective=WITHIN_ERROR, limits={REL_ERROR: limit})
    decisions = dict(decide(problem).solution.decisions)
    now_us, error = problem.cost(decisions).total_us, squared_error(decisions)
    objective = objective_of(WITHIN_ERROR)
    exact = [
        plan
        for plan in every_plan(problem)
        if all(squared_error({i: d}) <= squared_error({i: decisions[i]}) for i, d in plan.items())
    ]
    explanation = explain(problem, decisions)
    for subgraph in explanation.subgraphs:
        for other in subgraph.alternatives:
            alone = {**decisions, subgraph.id: other.decision}
            if squared_error(alone) > error:
                assert other.extra == pytest.approx(problem.cost(alone).total_us - now_us)
                assert other.excess == pytest.approx(objective.excess(problem, alone))
                continue
            forced = [plan for plan in exact if plan[subgraph.id] == other.decision]
            least_us = min(problem.cost(plan).total_us for plan in forced)
            assert other.extra == pytest.approx(least_us - now_us, abs=1e-6)
    gains = explanation.gains
    assert gains.plan_us == pytest.approx(now_us)
    assert gains.joint_us == pytest.approx(min(problem.cost(p).total_us for p in exact))


def uncertain(problem: PlanningProblem, share: float = 0.1) -> PlanningProblem:
    return reprice(problem, lambda _, o: replace(o, spread_us=share * o.cost_us, source="learned"))


def test_a_subgraph_beside_a_longer_path_is_not_worth_measuring():
    """The device takes far longer than the host beside it, which has no choice felt."""
    problem = fork().restrict(
        lambda node, o: o.decision.unit == ("opencl" if node.id in ("s1", "s2", "s3") else "cpu")
    )
    scaled = reprice(
        problem,
        lambda node, o: replace(o, cost_us=o.cost_us * (1000 if o.memory != HOST else 1)),
    )
    nodes = tuple(
        replace(
            node,
            options=(
                *node.options,
                *(
                    replace(o, decision=replace(o.decision, algorithm="winograd"))
                    for o in node.options
                ),
            ),
        )
        for node in uncertain(scaled).nodes
    )
    problem = replace(scaled, nodes=nodes)
    decisions = {node.id: node.options[0].decision for node in problem.nodes}
    summed = value_of_information(problem, decisions).worth
    felt = value_of_information(replace(problem, objective=MAKESPAN), decisions).worth
    assert {id_ for id_, _ in summed} == {node.id for node in problem.nodes}
    assert not {id_ for id_, _ in felt} & {"s4", "s5", "s6"}
    assert {"s1", "s2", "s3"} <= {id_ for id_, _ in felt}


def test_measuring_for_the_makespan_ends_at_a_shorter_plan_than_measuring_for_the_sum():
    real = reprice(fork(), lambda _, o: replace(o, spread_us=0.0, source="measured"))
    rng = random.Random(3)
    guess = reprice(
        real,
        lambda _, o: replace(
            o, cost_us=(us := o.cost_us * rng.uniform(0.5, 2.0)), spread_us=us, source="learned"
        ),
    )
    asked = []

    def measure(candidates):
        asked.extend(candidates)
        return {(i, d): real.by_id[i].option(d) for i, d in candidates}

    keys = {n.id: n.id for n in guess.nodes}
    summed = refine(guess, keys, measure)
    asked.clear()
    found = refine(replace(guess, objective=MAKESPAN), keys, measure)
    assert found.stable
    assert found.solution.bounds.keys() == {MAKESPAN}
    assert len(asked) == len(set(asked)) == found.measured
    shortest_us = schedule(real, found.solution.decisions).makespan_us
    assert shortest_us < schedule(real, summed.solution.decisions).makespan_us
    best = solve_parallel(real, summed.solution.decisions)
    assert shortest_us == pytest.approx(best.bound_us)


def test_a_budget_of_error_does_not_stop_measuring_of_less_exact_candidates():
    """Predicted errors are rough: measured ones decide, so less exact candidates are worth measuring."""
    problem = uncertain(_in_two_precisions(), 0.5)
    limited = replace(problem, objective=WITHIN_ERROR, limits={REL_ERROR: 1e-6})
    asked = []

    def measure(candidates):
        asked.extend(candidates)
        return {}

    refine(limited, {n.id: n.id for n in limited.nodes}, measure)
    assert "bf16" in {decision.precision for _, decision in asked}


def _in_two_precisions() -> PlanningProblem:
    problem = graph_problem([[-1], [0], [1]], random.Random(1), units=("cpu",), layouts=("NCHW",))
    nodes = tuple(
        replace(
            node,
            options=(
                *node.options,
                *(
                    replace(
                        o, decision=replace(o.decision, precision="bf16"), cost_us=o.cost_us * 0.8
                    )
                    for o in node.options
                ),
            ),
        )
        for node in problem.nodes
    )
    return replace(problem, nodes=nodes)
