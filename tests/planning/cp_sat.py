"""Oracle of solvers: planning problems as constraint programmes for CP-SAT, from the definitions of their objectives.

It shares no code with our solvers, schedules and bounds. CP-SAT computes with integers: :func:`rounded` makes the
prices of a problem whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from layoutsel.core.precision import local_error
from layoutsel.cost.place import HOST, OUTSIDE, Place
from layoutsel.cost.tensor import KINDS, Tensor, TensorUse, is_boundary
from layoutsel.planning.problem import Option, PlanningProblem
from layoutsel.planning.resources import Resources
from tvm_passes.decision import Decision, SubgraphId

cp_model: Any = pytest.importorskip(
    "ortools.sat.python.cp_model", reason="the oracle needs ortools, a package of the extra 'dev'"
)

_PRICE_US = 0.1
"""Prices of rounded problems are multiples of this."""
_TICK_US = 0.05
"""Unit of time of the programmes: a step may occupy a resource for half of its price."""
_SQUARED_ERROR = 1e-18
"""Unit of squared errors in the programmes."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The best plan that CP-SAT found, and its bound."""

    value_us: float
    """Value of the plan, microseconds."""
    bound_us: float
    """Proven: no plan has a lower value, microseconds."""
    decisions: Mapping[SubgraphId, Decision]

    @property
    def is_best(self) -> bool:
        """True if no plan has a lower value."""
        return self.value_us - self.bound_us < _TICK_US / 2


def rounded(problem: PlanningProblem) -> PlanningProblem:
    """Copy `problem` with prices that programmes can state exactly."""
    nodes = tuple(
        replace(n, options=tuple(replace(o, cost_us=_round(o.cost_us)) for o in n.options))
        for n in problem.nodes
    )
    names = [f"{kind}_us" for kind in KINDS]
    tensors = tuple(
        replace(t, **{n: {k: _round(us) for k, us in getattr(t, n).items()} for n in names})
        for t in problem.tensors
    )
    return replace(problem, nodes=nodes, tensors=tensors)


def least_sum(
    problem: PlanningProblem, *, most_squared: float | None = None, time_limit_s: float = 60.0
) -> Proof:
    """Minimise the sum of all prices, among plans with at most the squared error `most_squared`."""
    choices = _Choices(problem)
    model = choices.model
    cost = sum(lit * _ticks(option.cost_us) for option, lit in choices.all())
    for tensor in problem.tensors:
        paid: dict[_Ends, Any] = {}
        for use in tensor.uses:
            for ends, (us, made, taken) in choices.payments(tensor, use).items():
                if ends not in paid:
                    paid[ends] = model.new_bool_var("")
                    cost += paid[ends] * _ticks(us)
                # Each sum is 0 or 1: this is tighter than an implication for each pair of candidates.
                model.add(sum(made.values()) + sum(taken.values()) <= 1 + paid[ends])
    if most_squared is not None:
        errors = [(lit, local_error(option.decision.precision)) for option, lit in choices.all()]
        squared = sum(lit * round(error**2 / _SQUARED_ERROR) for lit, error in errors)
        model.add(squared <= round(most_squared / _SQUARED_ERROR))
    return choices.minimised(cost, time_limit_s)


def least_makespan(problem: PlanningProblem, *, time_limit_s: float = 60.0) -> Proof:
    """Minimise the time until all results are there.

    Steps follow the steps that they need, and steps on one resource do not overlap. The order of calls is left out, so
    no schedule of one is shorter than the best of these.
    """
    timetable = _Timetable(problem)
    for tensor in problem.tensors:
        timetable.bring(tensor)
    return timetable.shortest(time_limit_s)


_Ends = tuple[str, str, str]
"""Kind of a boundary, and the names of its two ends."""
_Literals = dict[int, Any]
"""Distinct literals by their identities."""


class _Choices:
    """Programme with a literal for each candidate; exactly one of each sub-graph is true."""

    def __init__(self, problem: PlanningProblem) -> None:
        self.problem = problem
        self.model = cp_model.CpModel()
        self._taken: dict[SubgraphId, list[tuple[Option, Any]]] = {}
        for node in problem.nodes:
            self._taken[node.id] = [(o, self.model.new_bool_var("")) for o in node.options]
            self.model.add_exactly_one(lit for _, lit in self._taken[node.id])

    def of(self, id_: SubgraphId) -> Sequence[tuple[Option, Any]]:
        """List the candidates of a sub-graph with their literals."""
        return self._taken[id_]

    def all(self) -> Iterator[tuple[Option, Any]]:
        """List all candidates with their literals."""
        for candidates in self._taken.values():
            yield from candidates

    def made(self, tensor: Tensor) -> list[tuple[Place, Any]]:
        """List the places where a tensor may be made, each with its condition."""
        if tensor.producer is None:
            return [(OUTSIDE, 1)]
        return [(o.made[tensor.output_index], lit) for o, lit in self.of(tensor.producer)]

    def wanted(self, use: TensorUse) -> list[tuple[Place, Any]]:
        """List the places where a tensor may be wanted, each with its condition."""
        if use.consumer is None:
            return [(OUTSIDE, 1)]
        return [(o.wanted[use.input_index], lit) for o, lit in self.of(use.consumer)]

    def payments(
        self, tensor: Tensor, use: TensorUse
    ) -> dict[_Ends, tuple[float, _Literals, _Literals]]:
        """Find the boundaries that a use may need: price, and the conditions at the two ends."""
        found: dict[_Ends, tuple[float, _Literals, _Literals]] = {}
        for source, made in self.made(tensor):
            for place, taken in self.wanted(use):
                for kind, name in KINDS.items():
                    if is_boundary(kind, source, place):
                        ends = (kind, name(source), name(place))
                        us = tensor.price(kind, source, place)
                        _, at_source, at_place = found.setdefault(ends, (us, {}, {}))
                        at_source[id(made)] = made
                        at_place[id(taken)] = taken
        return found

    def minimised(self, objective: Any, time_limit_s: float) -> Proof:
        """Solve the programme."""
        self.model.minimize(objective)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.linearization_level = 2
        solver.parameters.max_time_in_seconds = time_limit_s
        status = solver.solve(self.model)
        assert status in (cp_model.OPTIMAL, cp_model.FEASIBLE), solver.status_name(status)
        return Proof(
            value_us=solver.objective_value * _TICK_US,
            bound_us=solver.best_objective_bound * _TICK_US,
            decisions={
                id_: next(option.decision for option, lit in candidates if solver.value(lit))
                for id_, candidates in self._taken.items()
            },
        )


class _Timetable(_Choices):
    """Programme of all schedules of all plans."""

    def __init__(self, problem: PlanningProblem) -> None:
        super().__init__(problem)
        self._horizon = 1 + _ticks(_round(_longest_us(problem)))
        self._busy: dict[str, list[tuple[Any, Any]]] = {}
        """By resource, the intervals of steps, and the time that each occupies if it is done."""
        self._makespan = self._time()
        self._starts: dict[SubgraphId | None, Any] = {None: self._makespan}
        self._ends: dict[SubgraphId | None, Any] = {None: 0}
        for node in problem.nodes:
            self._starts[node.id], self._ends[node.id] = self._time(), self._time()
            self.model.add(self._makespan >= self._ends[node.id])
            for option, lit in self.of(node.id):
                used = problem.resources.compute(
                    option.decision.unit, option.memory, option.cost_us
                )
                end = self._occupied(self._starts[node.id], used, lit)
                self.model.add(self._ends[node.id] == end).only_enforce_if(lit)

    def bring(self, tensor: Tensor) -> None:
        """Let the consumers of a tensor follow its producer, and the boundaries between them."""
        done: dict[tuple[object, ...], tuple[Any, Any, Any]] = {}
        for use in tensor.uses:
            self.model.add(self._starts[use.consumer] >= self._ends[tensor.producer])
            for source, made in self.made(tensor):
                for place, taken in self.wanted(use):
                    self._follow(tensor, use, (source, made), (place, taken), done)

    def _follow(
        self,
        tensor: Tensor,
        use: TensorUse,
        made: tuple[Place, Any],
        taken: tuple[Place, Any],
        done: dict[tuple[object, ...], tuple[Any, Any, Any]],
    ) -> None:
        """Let a use follow the boundaries between two places, if both are chosen."""
        source, place = made[0], taken[0]
        both = [lit for _, lit in (made, taken) if not isinstance(lit, int)]
        ready = self._ends[tensor.producer]
        for kind in _kinds(source, place):
            us = tensor.price(kind, source, place)
            (used,) = self.problem.resources.boundary(kind, source.memory, place.memory, us)
            key = (source, *_step(kind, place), tuple(used.busy_us))
            if key not in done:
                start, lit = self._time(), self.model.new_bool_var("")
                done[key] = start, lit, self._occupied(start, used, lit)
            start, lit, end = done[key]
            self.model.add(start >= ready).only_enforce_if(both)
            self.model.add_bool_or([*(one.negated() for one in both), lit])
            ready = end
        self.model.add(self._starts[use.consumer] >= ready).only_enforce_if(both)

    def _occupied(self, start: Any, used: Resources, lit: Any) -> Any:
        """Occupy resources from `start` on, if `lit` is true; returns the time of the result."""
        for resource, us in used.busy_us.items():
            size = _ticks(us)
            interval = self.model.new_optional_fixed_size_interval_var(start, size, lit, "")
            self._busy.setdefault(resource, []).append((interval, size * lit))
        return start + _ticks(used.duration_us)

    def _time(self) -> Any:
        return self.model.new_int_var(0, self._horizon, "")

    def shortest(self, time_limit_s: float) -> Proof:
        """Solve the programme for the least makespan."""
        for steps in self._busy.values():
            self.model.add_no_overlap([interval for interval, _ in steps])
            # Implied; it makes bounds much better.
            self.model.add(self._makespan >= sum(busy for _, busy in steps))
        return self.minimised(self._makespan, time_limit_s)


def _longest_us(problem: PlanningProblem) -> float:
    """Compute a time within which all steps of any plan can be done one after the other."""
    total = sum(max(option.cost_us for option in node.options) for node in problem.nodes)
    for tensor in problem.tensors:
        prices = [us for kind in KINDS for us in getattr(tensor, f"{kind}_us").values()]
        (copying,) = problem.resources.boundary("copy", HOST, "other", 0.0)
        total += sum(prices) + len(prices) * copying.delay_us
    return 2 * total  # a tensor may be copied once for each layout


def _kinds(source: Place, place: Place) -> list[str]:
    """List the boundaries in order: only the host transforms what it gets from a device."""
    is_fetched = source.memory != HOST and place.memory == HOST
    order = ("copy", "transform") if is_fetched else ("transform", "copy")
    return [kind for kind in (*order, "crossing") if is_boundary(kind, source, place)]


def _step(kind: str, place: Place) -> tuple[str, ...]:
    """Identify a boundary of a tensor: a layout is copied to a device once."""
    is_sent = kind == "copy" and place.memory != HOST
    return (kind, KINDS[kind](place), place.layout if is_sent else "")


def _round(us: float) -> float:
    return round(us / _PRICE_US) * _PRICE_US


def _ticks(us: float) -> int:
    ticks = round(us / _TICK_US)
    assert abs(us / _TICK_US - ticks) < 1e-6, f"{us} us: round the problem first"
    return ticks
