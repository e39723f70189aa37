"""The table of objectives: entries from outside the package plan like ours, and every answer fits brute force."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from layoutsel.core.precision import REL_ERROR
from layoutsel.cost.place import HOST
from layoutsel.planning.new_plan import make_plan
from layoutsel.planning.objectives import (
    OBJECTIVES,
    Answer,
    Assessed,
    Objective,
    decide,
    objective_of,
    objectives,
    register,
)
from layoutsel.planning.plan import Plan
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.solve import solve
from layoutsel.planning.trade_off import squared_error
from layoutsel.planning.values import MAKESPAN, SUM, WITHIN_ERROR
from tests.planning.problems import graph_problem, small_problems
from tests.planning.test_trade_off import problems as problems_of_precisions
from tvm_passes.errors import LayoutselError

SLACK = 1e-6


def bytes_moved(problem, decisions) -> Assessed:
    sizes = {tensor.name: tensor.bytes for tensor in problem.tensors}
    moved = [sizes[b.tensor] for b in problem.cost(decisions).boundaries if b.kind != "crossing"]
    return Assessed(value=float(sum(moved)))


def priced_in_bytes(problem: PlanningProblem) -> PlanningProblem:
    """The problem where nothing costs but layout transforms and copies, each its tensor's bytes."""
    nodes = tuple(
        replace(node, options=tuple(replace(o, cost_us=0.0) for o in node.options))
        for node in problem.nodes
    )
    tensors = tuple(
        replace(
            tensor,
            transform_us=dict.fromkeys(tensor.transform_us, float(tensor.bytes)),
            crossing_us=dict.fromkeys(tensor.crossing_us, 0.0),
            copy_us=dict.fromkeys(tensor.copy_us, float(tensor.bytes)),
        )
        for tensor in problem.tensors
    )
    return replace(problem, nodes=nodes, tensors=tensors)


def fewest_bytes(problem, strategy, time_limit_s):
    del strategy
    found = solve(priced_in_bytes(problem), time_limit_s=time_limit_s)
    return Answer.of(
        problem,
        found.decisions,
        bound=found.bound_us,
        solver=f"bytes by {found.solver}",
        time_s=found.time_s,
    )


BYTES = Objective(
    name="bytes",
    unit="B",
    about="bytes moved",
    assess=bytes_moved,
    solvers={"planner": fewest_bytes},
    bound=lambda problem, limit_s: solve(priced_in_bytes(problem), time_limit_s=limit_s).bound_us,
)
"""Total bytes that are transformed or copied: solved by the planner, with other prices."""


def most_on_devices(problem, strategy, time_limit_s):
    del strategy, time_limit_s
    decisions = {
        node.id: max(node.options, key=lambda option: option.memory != HOST).decision
        for node in problem.nodes
    }
    best = devices(problem, decisions).value
    return Answer.of(problem, decisions, bound=best, solver="each", time_s=0.0)


def devices(problem, decisions) -> Assessed:
    memories = [problem.by_id[id_].option(d).memory for id_, d in decisions.items()]
    return Assessed(value=float(sum(memory != HOST for memory in memories)))


OFFLOADED = Objective(
    name="offloaded",
    unit="sub-graphs",
    about="sub-graphs off the host",
    assess=devices,
    solvers={"each": most_on_devices},
    bound=lambda problem, _: float(len(problem.nodes)),
    maximised=True,
)
"""Number of sub-graphs that a device computes: larger is better."""


def bottleneck(problem, decisions) -> Assessed:
    return Assessed(value=max(problem.cost(decisions).subgraphs.values()))


def least_bottleneck(problem, strategy, time_limit_s):
    del strategy, time_limit_s
    decisions = {n.id: min(n.options, key=lambda o: o.cost_us).decision for n in problem.nodes}
    best = bottleneck(problem, decisions).value
    return Answer.of(problem, decisions, bound=best, solver="cheapest", time_s=0.0)


BOTTLENECK = Objective(
    name="bottleneck",
    unit="us",
    about="the slowest sub-graph",
    assess=bottleneck,
    solvers={"cheapest": least_bottleneck},
    bound=lambda problem, _: max(min(o.cost_us for o in n.options) for n in problem.nodes),
)

TOYS = (BYTES, OFFLOADED, BOTTLENECK)


@pytest.fixture(autouse=True, scope="module")
def toys():
    """The toys in the table, as a package of somebody else would add them."""
    with OBJECTIVES.including(*TOYS):
        yield


def every_plan(problem):
    for options in itertools.product(*(node.options for node in problem.nodes)):
        yield {n.id: o.decision for n, o in zip(problem.nodes, options, strict=True)}


def planned(problem: PlanningProblem, **options) -> Plan:
    """The plan for the problem's objective, by the public functions alone."""
    answer = decide(problem, **options)
    return make_plan(problem, answer.solution, strategy="joint", machine="m", versions={})


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
@settings(max_examples=examples(25), deadline=None)
@given(problem=small_problems())
def test_an_objective_from_outside_plans_as_brute_force_does(toy, problem):
    problem = replace(problem, objective=toy.name)
    plan = planned(problem)
    found = [toy.assess(problem, decisions).value for decisions in every_plan(problem)]
    best = max(found) if toy.maximised else min(found)
    value = plan.values[toy.name]
    assert (value.unit, value.value) == (toy.unit, pytest.approx(best))
    assert value.bound == pytest.approx(best)
    assert value.gap == 0
    assert plan.cost_us == pytest.approx(problem.cost(plan.decisions).total_us)
    assert plan.bound_us == pytest.approx(solve(problem).bound_us)


@pytest.mark.parametrize("name", [SUM, MAKESPAN, *(toy.name for toy in TOYS)])
@settings(max_examples=examples(10), deadline=None)
@given(problem=small_problems())
def test_the_bound_fits_every_plan(name, problem):
    problem = replace(problem, objective=name)
    objective = objective_of(name)
    bound = objective.bound(problem, 5.0)
    plans = list(every_plan(problem))[:300]
    sign = -1 if objective.maximised else 1
    for decisions in plans:
        assert sign * objective.assess(problem, decisions).value >= sign * bound - SLACK


@settings(max_examples=examples(25), deadline=None)
@given(problem=problems_of_precisions(), limit=st.sampled_from([1e-9, 1e-5, 2e-3, 3e-3, 1.0]))
def test_an_error_budget_is_kept_and_bounded(problem, limit):
    problem = replace(problem, objective=WITHIN_ERROR, limits={REL_ERROR: limit})
    objective = objective_of(WITHIN_ERROR)
    plan = planned(problem)
    plans = list(every_plan(problem))
    best = min(plans, key=lambda decisions: objective.rank(problem, decisions))
    excess, best_us = objective.rank(problem, best)
    value = plan.values[WITHIN_ERROR]
    assert objective.excess(problem, plan.decisions) == pytest.approx(excess)
    assert value.bound <= best_us + SLACK
    assert best_us - SLACK <= value.value == plan.cost_us
    assert objective.bound(problem, 10.0) == pytest.approx(value.bound)
    # The older bound is one on plans that are as exact as this one.
    exact = [p for p in plans if squared_error(p) <= squared_error(plan.decisions)]
    assert plan.bound_us <= min(problem.cost(p).total_us for p in exact) + SLACK


def fork(objective: str) -> PlanningProblem:
    made = graph_problem(
        [[-1], [0], [0], [1, 2]], random.Random(5), layouts=("NCHW",), units=("cpu", "opencl")
    )
    return replace(made, objective=objective)


@pytest.mark.parametrize("name", [SUM, MAKESPAN, *(toy.name for toy in TOYS)])
def test_a_plan_file_states_value_and_bound_per_objective(name, tmp_path):
    plan = planned(fork(name))
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert plan.objective == name
    assert set(plan.values) == {SUM, name}
    assert (plan.cost_us, plan.bound_us) == (plan.values[SUM].value, plan.values[SUM].bound)
    assert bool(plan.order) == (plan.makespan is not None) == (name == MAKESPAN)


def test_a_plan_of_an_objective_that_is_not_there_can_be_read(tmp_path, monkeypatch):
    planned(fork("bytes")).save(tmp_path / "plan.json")
    others = {name: one for name, one in objectives().items() if name != "bytes"}
    monkeypatch.setattr(OBJECTIVES, "_entries", others)
    with pytest.raises(ProblemError, match="unknown objective 'bytes'; expected one of makespan"):
        objective_of("bytes")
    assert Plan.load(tmp_path / "plan.json").values["bytes"].unit == "B"


def test_a_second_objective_of_one_name_is_refused():
    with pytest.raises(LayoutselError, match="two objectives are called 'bytes'"):
        register(replace(BYTES, unit="KiB"))
    assert objective_of("bytes") is BYTES


def test_every_solver_of_the_sum_agrees():
    problem = fork(SUM)
    costs = [
        decide(problem, solver=name).solution.cost_us
        for name in objective_of(SUM).solvers
        if name != "dual"
    ]
    assert costs == pytest.approx([costs[0]] * 3)


def test_our_entries_come_first():
    assert list(objectives())[:3] == [MAKESPAN, SUM, WITHIN_ERROR]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "beauty"}, "unknown objective 'beauty'; expected one of makespan, sum"),
        ({"limits": {REL_ERROR: 1e-3}}, r"'sum': got a problem with the limits \['rel_error'\]"),
        ({"objective": WITHIN_ERROR}, r"expected \['rel_error'\]"),
    ],
)
def test_what_the_table_does_not_know_is_refused(change, message):
    with pytest.raises(ProblemError, match=message):
        decide(replace(fork(SUM), **change))


def test_an_unknown_solver_is_refused():
    with pytest.raises(ProblemError, match="'makespan' has no solver 'luck'; expected one of sch"):
        decide(fork(MAKESPAN), solver="luck")
