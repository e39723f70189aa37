"""Measuring of only what could change the plan, in order of the expected gain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from layoutsel.core.precision import OWN
from layoutsel.core.workload import INTERRUPTED
from layoutsel.planning.objectives import answer, objective_of, unlimited
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import Solution
from layoutsel.planning.value_of_information import (
    MEASURED,
    Candidate,
    InformationValue,
    reprice,
    value_of_information,
)
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import Decline, LayoutselError

GUESSED = "roofline"
"""Source of a cost that follows from the work alone."""
BATCH = 6
"""Number of candidates measured between two plans."""

Measure = Callable[[Sequence[Candidate]], Mapping[Candidate, Option | None]]
"""Function that measures candidates.

It returns their new prices, None for a candidate that does not work, and fewer answers when the
time is over.
"""


@dataclass(frozen=True)
class Tolerance:
    """Expected loss by uncertainty up to which a plan is stable, so that nothing is measured."""

    share: float
    """Loss relative to the value of the plan."""
    least: float = 0.0
    """Loss in the objective's unit, below which the share does not matter."""

    def accepts(self, loss: float, value: float) -> bool:
        """True if a plan of this value is stable."""
        return loss <= max(self.share * abs(value), self.least)


STABLE = Tolerance(0.001)
"""Tolerance of the mode ``hybrid``."""
WORTHWHILE = Tolerance(0.02, least=20.0)
"""Tolerance of the mode ``auto``; below, the time for measuring is worth more than the gain."""


@dataclass(frozen=True, kw_only=True)
class Refined:
    """A problem with as many measurements as needed or allowed."""

    problem: PlanningProblem
    """Problem with the measured prices."""
    solution: Solution
    """Best plan of the problem."""
    information: InformationValue
    """Remaining value of further measurements."""
    measured: int
    """Number of distinct measured candidates."""
    stable: bool
    """True if the plan became stable; False if the budget was spent before."""


def refine(
    problem: PlanningProblem,
    key_of: Mapping[SubgraphId, str],
    measure: Measure,
    *,
    stand_in: Callable[[Decision], Decision] = lambda decision: decision,
    tolerance: Tolerance = STABLE,
    time_limit_s: float = 5.0,
) -> Refined:
    """Measure candidates of `problem` until its best plan is stable, or `measure` returns nothing.

    The best plan is that of the objective without limits, as limits often concern measured
    quantities.

    Parameters
    ----------
    problem
        Problem with predicted prices for all candidates without a measurement.
    key_of
        Key of each sub-graph; those with equal keys share measurements.
    measure
        Function that measures at most :data:`BATCH` candidates, one for all sub-graphs of a key.
    stand_in
        Function that maps decisions to those measured for them, such as on identical devices.
    tolerance
        Expected loss at which the plan is stable.
    time_limit_s
        Time limit of each plan, seconds.
    """
    measured = 0
    while True:
        free = unlimited(problem)
        solution = answer(free, time_limit_s=time_limit_s).solution
        found = value_of_information(free, solution.decisions)
        wanted = _most_worthwhile(found, key_of, stand_in)
        value = objective_of(free.objective).assess(free, solution.decisions).value
        stable = tolerance.accepts(found.loss, value) or not wanted
        answers = {} if stable else measure(wanted)
        if not answers:
            return Refined(
                problem=problem,
                solution=solution,
                information=found,
                measured=measured,
                stable=stable,
            )
        measured += len(answers)
        known = {
            (key_of[id_], stand_in(decision)): option for (id_, decision), option in answers.items()
        }
        problem = reprice(problem, partial(_known, known, key_of, stand_in))


def is_guess(option: Option) -> bool:
    """True if a candidate with reduced precision has only a roofline as its price.

    It was then neither measured nor predicted by the learned cost model.
    """
    return option.source == GUESSED and option.decision.precision not in OWN


def has_guesses(problem: PlanningProblem) -> bool:
    """True if some candidate is a guess."""
    return any(is_guess(option) for node in problem.nodes for option in node.options)


def without_guesses(problem: PlanningProblem) -> PlanningProblem:
    """Decline guesses of sub-graphs that have other candidates."""
    return _without(problem, is_guess, _NEVER_MEASURED)


def has_estimates(problem: PlanningProblem, units: Collection[str]) -> bool:
    """True if a candidate of these `units` is neither measured nor learned."""
    return any(_is_estimate(units, option) for node in problem.nodes for option in node.options)


def without_estimates(problem: PlanningProblem, units: Collection[str]) -> PlanningProblem:
    """Decline candidates of these `units` with only a roofline, as in :func:`without_guesses`."""
    return _without(problem, partial(_is_estimate, units), _NEVER_MEASURED)


def without_interrupted(problem: PlanningProblem) -> PlanningProblem:
    """Decline candidates whose measurement was interrupted, as in :func:`without_guesses`.

    Their speed is unknown: they are neither trusted as estimated nor rejected for later sessions.
    """
    return _without(problem, _is_interrupted, _INTERRUPTED)


def _is_interrupted(option: Option) -> bool:
    return option.source == INTERRUPTED


def _is_estimate(units: Collection[str], option: Option) -> bool:
    return option.decision.unit in units and option.source == GUESSED


def require_measured(problem: PlanningProblem, what: str) -> None:
    """Reject a problem with costs that were not measured, where measuring is not possible.

    Raises
    ------
    LayoutselError
        If a candidate has no measurement; the message counts them and names the first.
    """
    options = [(node.id, option) for node in problem.nodes for option in node.options]
    missing = [(id_, option) for id_, option in options if option.source != MEASURED]
    if missing:
        id_, first = missing[0]
        lacking = {option.decision.unit for _, option in missing}
        known = [unit for unit in problem.units if unit not in lacking]
        suffice = all(any(o.decision.unit in known for o in node.options) for node in problem.nodes)
        named = f", or name what was measured with --units {','.join(known)}" if suffice else ""
        raise LayoutselError(
            f"{what}: got no measurement of {len(missing)} of {len(options)} candidates, "
            f"such as {id_} as {first.decision}; expected all, taken there, as nothing is "
            f"measured here. Use --cost learned or roofline{named}"
        )


_NEVER_MEASURED = (
    "nothing but the estimate of its roofline",
    "a measurement: a longer --measure-budget takes more of them, those taken are kept",
)
"""Got and expected of candidates that are declined for lack of a measurement."""
_INTERRUPTED = (
    "a measurement that was interrupted, by its limit of time or by the state of the machine",
    "one that ends: the next session tries again",
)


def _without(
    problem: PlanningProblem, leave_out: Callable[[Option], bool], reason: tuple[str, str]
) -> PlanningProblem:
    """Decline options of nodes that have others; `reason` is got and expected."""
    nodes = tuple(_node_without(node, leave_out, reason) for node in problem.nodes)
    return replace(problem, nodes=nodes)


def _node_without(
    node: PricedSubgraph, leave_out: Callable[[Option], bool], reason: tuple[str, str]
) -> PricedSubgraph:
    kept = tuple(option for option in node.options if not leave_out(option))
    if not kept:
        return node
    declines = tuple(
        Decline(
            subgraph=node.id,
            operator=", ".join(node.operators),
            decision=str(option.decision),
            got=reason[0],
            expected=reason[1],
        )
        for option in node.options
        if leave_out(option)
    )
    return replace(node, options=kept, declines=(*node.declines, *declines))


def _most_worthwhile(
    found: InformationValue,
    key_of: Mapping[SubgraphId, str],
    stand_in: Callable[[Decision], Decision],
) -> list[Candidate]:
    worth: dict[tuple[str, object], float] = {}
    first: dict[tuple[str, object], Candidate] = {}
    for candidate, gain in found.worth.items():
        key = (key_of[candidate[0]], stand_in(candidate[1]))
        worth[key] = worth.get(key, 0.0) + gain
        first.setdefault(key, candidate)
    ranked = sorted(worth, key=lambda key: (-worth[key], str(key)))
    return [first[key] for key in ranked[:BATCH]]


def _known(
    known: Mapping[tuple[str, Decision], Option | None],
    key_of: Mapping[SubgraphId, str],
    stand_in: Callable[[Decision], Decision],
    node: PricedSubgraph,
    option: Option,
) -> Option | None:
    key = (key_of[node.id], stand_in(option.decision))
    if key not in known:
        return option
    answer = known[key]
    if answer is None:
        return None
    return replace(option, cost_us=answer.cost_us, spread_us=answer.spread_us, source=answer.source)
