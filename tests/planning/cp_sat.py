"""An oracle for planning: problems as constraint programmes, solved by CP-SAT of OR-Tools.

The programmes are written from the definition of the costs, :func:`PlanningProblem.cost`, and of the
resources, :class:`HostDriven`. They share no table and no bound with the solvers that they judge.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ortools.sat.python import cp_model

from layoutsel.core.precision import LOCAL_ERRORS
from layoutsel.cost.place import HOST, OUTSIDE, Place
from layoutsel.cost.tensor import KINDS, Tensor, TensorUse, is_boundary
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.resources import Resources
from tvm_passes.decision import Decision, SubgraphId

Decisions = dict[SubgraphId, Decision]
UNITS = 1e6
"""Units of a programme in a microsecond, for sums: rounding is far below what tests tell apart."""
TICKS = 1e3
"""The same for schedules, whose horizons CP-SAT keeps small."""


@dataclass(frozen=True)
class Optimum:
    """What CP-SAT proved."""

    decisions: Decisions
    us: float
    """Value of the best plan, microseconds, up to rounding."""
    bound_us: float
    """No plan is better; `us` where CP-SAT finished."""

    @property
    def is_proven(self) -> bool:
        return self.us - self.bound_us <= 1e-6 * max(self.us, 1.0)


@dataclass
class Programme:
    """Decisions as variables: each sub-graph takes one of its options."""

    problem: PlanningProblem
    model: cp_model.CpModel = field(default_factory=cp_model.CpModel)
    takes: dict[SubgraphId, list[cp_model.IntVar]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.problem.nodes:
            names = [f"{node.id} {option.decision}" for option in node.options]
            self.takes[node.id] = [self.model.new_bool_var(name) for name in names]
            self.model.add_exactly_one(self.takes[node.id])

    def ends(
        self, tensor: Tensor
    ) -> Iterator[tuple[TensorUse, Place, Place, list[cp_model.IntVar]]]:
        """Each way in which a tensor goes: its use, both places, and the literals that make it so."""
        for source, made in self.options(tensor.producer, tensor.output_index, "made"):
            for use in tensor.uses:
                for wanted, taken in self.options(use.consumer, use.input_index, "wanted"):
                    yield use, source, wanted, [made, taken]

    def options(
        self, id_: SubgraphId | None, index: int, side: str
    ) -> list[tuple[Place, cp_model.IntVar]]:
        """Place of a tensor under each option of a sub-graph; one place outside of the model."""
        if id_ is None:
            return [(OUTSIDE, self.model.new_constant(1))]
        options = self.problem.by_id[id_].options
        places = [getattr(option, side)[index] for option in options]
        return list(zip(places, self.takes[id_], strict=True))

    def implied(self, literals: list[cp_model.IntVar], var: cp_model.IntVar) -> None:
        """All of `literals` imply `var`."""
        self.model.add_bool_or([*(literal.negated() for literal in literals), var])

    def solved(self, per_us: float, time_limit_s: float) -> Optimum:
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = time_limit_s
        solver.parameters.num_workers = 4
        solver.parameters.random_seed = 0
        solver.parameters.linearization_level = 2
        status = solver.solve(self.model)
        assert status in (cp_model.OPTIMAL, cp_model.FEASIBLE), solver.status_name(status)
        decisions = {
            node.id: next(
                option.decision
                for option, var in zip(node.options, self.takes[node.id], strict=True)
                if solver.value(var)
            )
            for node in self.problem.nodes
        }
        us, bound_us = (
            value / per_us for value in (solver.objective_value, solver.best_objective_bound)
        )
        return Optimum(decisions, us, us if status == cp_model.OPTIMAL else bound_us)


def least_sum(
    problem: PlanningProblem, *, rel_error: float | None = None, time_limit_s: float = 20.0
) -> Optimum:
    """The plan with the least sum of costs; of those within a predicted error, where one is given."""
    programme = Programme(problem)
    paid: list[tuple[cp_model.IntVar, float]] = [
        (var, option.cost_us)
        for node in problem.nodes
        for option, var in zip(node.options, programme.takes[node.id], strict=True)
    ]
    for tensor in problem.tensors:
        paid += _boundaries(programme, tensor)
    programme.model.minimize(sum(round(us * UNITS) * var for var, us in paid))
    if rel_error is not None:
        _limit_error(programme, rel_error)
    return programme.solved(UNITS, time_limit_s)


def _boundaries(programme: Programme, tensor: Tensor) -> list[tuple[cp_model.IntVar, float]]:
    """Boundaries that a tensor may pay for: from each source to each distinct destination of a kind.

    A destination is wanted if any consumer takes an option that wants it; then exactly one source
    pays for it, the one that is taken.
    """
    model, paid = programme.model, []
    sources = programme.options(tensor.producer, tensor.output_index, "made")
    for kind, of in KINDS.items():
        wanted: dict[str, cp_model.IntVar] = {}
        places: dict[str, Place] = {}
        for use in tensor.uses:
            wants = defaultdict(list)
            for place, taken in programme.options(use.consumer, use.input_index, "wanted"):
                places[of(place)] = place
                wants[of(place)].append(taken)
            for name, taken in wants.items():
                var = wanted.setdefault(name, model.new_bool_var(f"{tensor.name} {kind} {name}"))
                model.add(var >= sum(taken))
        for name, var in wanted.items():
            pays = [model.new_bool_var(f"{tensor.name} {kind} {name} from {p}") for p, _ in sources]
            model.add(sum(pays) == var)
            for pay, (place, taken) in zip(pays, sources, strict=True):
                model.add(pay <= taken)
                paid.append((pay, tensor.price(kind, place, places[name])))
    return paid


def _limit_error(programme: Programme, rel_error: float) -> None:
    """Limit the sum of squared errors; the least one is the unit."""
    unit = min(LOCAL_ERRORS.values()) ** 2
    errors = [
        round(LOCAL_ERRORS[option.decision.precision] ** 2 / unit) * var
        for node in programme.problem.nodes
        for option, var in zip(node.options, programme.takes[node.id], strict=True)
    ]
    programme.model.add(sum(errors) <= math.floor(rel_error**2 / unit * (1 + 1e-9)))


class _Schedule:
    """Times of all steps: on each resource one at a time, each after those that it needs.

    Unlike in a list schedule, boundaries need not come directly before a call: no list schedule is
    shorter than the best of these.
    """

    def __init__(self, problem: PlanningProblem) -> None:
        self.programme = Programme(problem)
        self.model = self.programme.model
        self.horizon = math.ceil(TICKS * _horizon_us(problem))
        self.busy: dict[str, list[cp_model.IntervalVar]] = defaultdict(list)
        self.ends: dict[SubgraphId, cp_model.IntVar] = {}
        self.starts: dict[SubgraphId, cp_model.IntVar] = {}
        self.last = self._time("makespan")
        for node in problem.nodes:
            self._compute(node.id)
        for tensor in problem.tensors:
            self._bring(tensor)
        for intervals in self.busy.values():
            self.model.add_no_overlap(intervals)
        self.model.minimize(self.last)

    def _time(self, name: str) -> cp_model.IntVar:
        return self.model.new_int_var(0, self.horizon, name)

    def _occupy(self, start: cp_model.IntVar, used: Resources, present: cp_model.IntVar) -> int:
        """Occupy resources from `start` on; the ticks until the result is available."""
        for name, us in used.busy_us.items():
            ticks = math.floor(TICKS * us)
            interval = self.model.new_optional_fixed_size_interval_var(start, ticks, present, name)
            self.busy[name].append(interval)
        return math.floor(TICKS * used.duration_us)

    def _compute(self, id_: SubgraphId) -> None:
        problem = self.programme.problem
        start, end = self._time(f"{id_} starts"), self._time(f"{id_} ends")
        self.starts[id_], self.ends[id_] = start, end
        self.model.add(end <= self.last)
        for option, var in zip(problem.by_id[id_].options, self.programme.takes[id_], strict=True):
            used = problem.resources.compute(option.decision.unit, option.memory, option.cost_us)
            ticks = self._occupy(start, used, var)
            self.model.add(end >= start + ticks).only_enforce_if(var)

    def _bring(self, tensor: Tensor) -> None:
        """Bring a tensor to its consumers: each boundary once for a source and a destination."""
        ready = 0 if tensor.producer is None else self.ends[tensor.producer]
        known: dict[
            tuple[Place, str], tuple[cp_model.IntVar, cp_model.IntVar, cp_model.IntVar]
        ] = {}
        for use, source, wanted, literals in self.programme.ends(tensor):
            before = ready
            for kind in _kinds(source, wanted):
                if not is_boundary(kind, source, wanted):
                    continue
                key = (source, _name(kind, wanted))
                if key not in known:
                    known[key] = self._step(tensor, kind, source, wanted)
                present, start, end = known[key]
                self.programme.implied(literals, present)
                self.model.add(start >= before).only_enforce_if(literals)
                before = end
            reached = self.last if use.consumer is None else self.starts[use.consumer]
            self.model.add(reached >= before).only_enforce_if(literals)

    def _step(
        self, tensor: Tensor, kind: str, source: Place, wanted: Place
    ) -> tuple[cp_model.IntVar, cp_model.IntVar, cp_model.IntVar]:
        name = f"{tensor.name} {kind} {source} {wanted}"
        present, start, end = self.model.new_bool_var(name), self._time(name), self._time(name)
        us = tensor.price(kind, source, wanted)
        resources = self.programme.problem.resources
        ticks = self._occupy(
            start, resources.boundary(kind, source.memory, wanted.memory, us), present
        )
        self.model.add(end >= start + ticks).only_enforce_if(present)
        return present, start, end


def _kinds(source: Place, wanted: Place) -> tuple[str, ...]:
    """The host transforms: after a copy to it, before a copy from it."""
    if source.memory != HOST and wanted.memory == HOST:
        return ("copy", "transform", "crossing")
    return ("transform", "copy", "crossing")


def _name(kind: str, wanted: Place) -> str:
    layout = f" in {wanted.layout}" if kind == "copy" and wanted.memory != HOST else ""
    return f"{kind} to {KINDS[kind](wanted)}{layout}"


def _horizon_us(problem: PlanningProblem) -> float:
    """All steps one after the other, each at its dearest."""
    dearest = sum(max(option.cost_us for option in node.options) for node in problem.nodes)
    prices: list[Mapping[tuple[str, str], float]] = [
        of
        for tensor in problem.tensors
        for of in (tensor.transform_us, tensor.crossing_us, tensor.copy_us)
    ]
    return 1.0 + dearest + sum(sum(of.values()) for of in prices)


def least_makespan(problem: PlanningProblem, *, time_limit_s: float = 20.0) -> Optimum:
    """A makespan that no list schedule of any plan undercuts, and the decisions that reach it."""
    return _Schedule(problem).programme.solved(TICKS, time_limit_s)
