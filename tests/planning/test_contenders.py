"""A looser precision races all that a stricter one does: it cannot come out slower for want of a contender."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from layoutsel.core.precision import MODES, OWN
from layoutsel.planning.contenders import contenders, narrowings, within
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import solve
from tests.planning.problems import graph_problem

LOOSER = [("f32", "f32-grade"), ("f32", "bf16"), ("f32", "auto"), ("f32-grade", "auto")]
"""A mode, and one that offers more."""


def problem_of(seed: int) -> PlanningProblem:
    """A chain with a branch, whose products of bfloat16 seem faster by all sorts of factors."""
    rng = random.Random(seed)
    problem = graph_problem([[-1], [0], [1], [0], [2, 3], [4]], rng)
    nodes = tuple(
        replace(
            node,
            options=tuple(
                replace(
                    option,
                    decision=replace(option.decision, precision=precision),
                    cost_us=option.cost_us * factor,
                )
                for option in node.options
                for precision, factor in (
                    ("f32", 1.0),
                    ("split-bf16", rng.uniform(0.3, 1.5)),
                    ("bf16", rng.uniform(0.1, 0.9)),
                )
            ),
        )
        for node in problem.nodes
    )
    return replace(problem, nodes=nodes)


def raced(problem: PlanningProblem, mode: str) -> list[dict]:
    """Decisions of all contenders of a mode."""
    offered = MODES[mode]
    found = contenders(within(problem, (*OWN, *offered.precisions)), offered.stricter)
    return [dict(decisions) for decisions in found.values()]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("stricter", "looser"), LOOSER)
def test_contenders_of_a_stricter_precision_are_among_those_of_a_looser_one(stricter, looser, seed):
    problem = problem_of(seed)
    theirs, own = raced(problem, stricter), raced(problem, looser)
    assert theirs
    assert all(decisions in own for decisions in theirs)
    assert len(own) > len(theirs)


def test_no_two_are_equal_and_names_say_what_they_are_of():
    found = contenders(problem_of(0), MODES["f32-grade"].stricter)
    decisions = [tuple(sorted(one.items())) for one in found.values()]
    assert len(set(decisions)) == len(decisions)
    strict = {name: one for name, one in found.items() if name.endswith(" in f32")}
    assert strict
    for one in strict.values():
        assert {decision.precision for decision in one.values()} == {"f32"}


def test_with_other_prices_the_best_of_stricter_sets_alone_join():
    problem = problem_of(1)
    found = contenders(problem, MODES["auto"].stricter, narrowed_alone=True)
    best = solve(within(problem, OWN)).decisions
    assert dict(best) in [dict(decisions) for decisions in found.values()]
    assert all(" in " in name for name in found)


def test_a_sub_graph_without_the_precision_keeps_what_it_has():
    problem = problem_of(2)
    first = problem.nodes[0]
    only = tuple(option for option in first.options if option.decision.precision == "bf16")
    problem = replace(problem, nodes=(replace(first, options=only), *problem.nodes[1:]))
    narrowed = narrowings(problem, (OWN,))[" in f32"]
    assert narrowed.nodes[0].options == only
    assert {o.decision.precision for node in narrowed.nodes[1:] for o in node.options} == {"f32"}
