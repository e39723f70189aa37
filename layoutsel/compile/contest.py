"""Contest of built plans within limits of time and memory: trial runs and heats of a race."""

from __future__ import annotations

import gc
import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from layoutsel.compile.compiling import compiled, compiled_all
from layoutsel.compile.memory import MemoryBudget
from layoutsel.compile.plan_code import BUILD_LIMIT_S
from layoutsel.compile.session import Session
from layoutsel.planning.attribute import attribute
from layoutsel.planning.objectives import Objective, objective_of
from layoutsel.planning.plan import Measured, Plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.refine import TimedSubgraphs
from layoutsel.planning.residuals import SubgraphResidual
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.observe import observe
from layoutsel.runtime.race import race
from layoutsel.runtime.trial import TooSlow, run_within
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import LayoutselError
from tvm_passes.freed_memory import give_back

logger = logging.getLogger(__name__)

CHOSEN = "plan"
"""Name of the chosen plan, which contenders are compared with."""
SLOWER = 3.0
"""Factor in the time limit of a run: contenders slower than this are dropped.

The limit is ``SLOWER`` times the predicted time plus ``ALLOWED_S``.
"""
ALLOWED_S = 1.0
"""Summand in the time limit of a run, seconds."""
FIRST_RUN_S = 10.0
"""Additional time for a first run, in which drivers build kernels and allocate memory, seconds."""
AT_ONCE = 2
"""Number of plans that are built concurrently: LLVM uses one core for each."""
LEAST_BUILD_S = 10.0
"""Minimum time limit for building a contender, even close to the deadline, seconds."""
DROP_AFTER = 4
"""Rounds of the race after which clearly slower contenders are dropped."""
WATCH_S = 0.5
"""Time for tracing the steps of a built plan, seconds; see :mod:`layoutsel.runtime.observe`."""
TIE = 0.01
"""Share of the chosen plan's time by which a contender must be faster, if time decides."""


_NO_TIME = "the time limit is reached; a longer one (time_limit_s, --time-limit) takes more plans"
_NO_ROOM = (
    "too little memory beside the fastest one; a larger limit (memory_limit_mb, --memory-limit) "
    "takes more plans"
)


@dataclass(kw_only=True)
class Contender:
    """A built plan; its model may be released and built again."""

    name: str
    """Name of the plan; :data:`CHOSEN` for the chosen one."""
    plan: Plan
    """Decisions and predicted costs, and measurements if it was raced."""
    build: Callable[[], CompiledModel]
    """Function that builds the model."""
    built: CompiledModel | None = None
    """Model in memory; None before it is built, or after it is released."""

    @property
    def model(self) -> CompiledModel:
        """Model of the plan, built if it is not in memory."""
        if self.built is None:
            self.built = self.build()
        return self.built

    def retire(self) -> None:
        """Release the memory of the model."""
        self.built = None


@dataclass
class Contest:
    """Race of a chosen plan with its contenders.

    No contender is built, observed or raced after the session's time limit. Contenders that fit
    into the session's memory limit race together in a heat. The best one by the problem's objective
    stays in memory; the others are released.
    """

    session: Session
    """Session of the model."""
    problem: PlanningProblem
    """Problem with the prices of all contenders; its objective decides which one is the best."""
    inputs: Sequence[np.ndarray]
    """Inputs of all runs."""
    deadline: float
    """Deadline by :func:`time.monotonic`, seconds."""
    memory: MemoryBudget
    """Memory that contenders may take."""
    entered: dict[str, Contender] = field(default_factory=dict)
    """Built contenders by name, except dropped ones; the chosen one stays."""
    tried: list[dict[SubgraphId, Decision]] = field(default_factory=list)
    """Decisions of all plans that were built, including dropped ones."""
    measured: dict[str, Measured] = field(default_factory=dict)
    """Measured times by the name of the contender."""
    _alive: list[str] = field(default_factory=list)
    """Names of the contenders in the next heat."""
    _watched: list[tuple[float, Sequence[SubgraphResidual]]] = field(default_factory=list)
    """Predicted cost, microseconds, and observed sub-graphs of each plan."""
    _left_out: dict[str, list[str]] = field(default_factory=lambda: {_NO_TIME: [], _NO_ROOM: []})
    """Names of plans that were not built, by reason."""
    _is_disturbed: bool = False
    """True if a run that cannot be stopped is still going on."""

    def is_over(self) -> bool:
        """True if no further plan may enter."""
        return self._is_disturbed or time.monotonic() >= self.deadline

    def enter_chosen(self, plan: Plan, model: CompiledModel | None) -> None:
        """Enter the chosen plan, and build it unless `model` is given.

        Raises
        ------
        LayoutselError
            If it cannot be built, or one run takes longer than the session's time limit.
        """
        self._take_in(CHOSEN, plan, model or compiled(self.session, plan))

    def enter(self, plans: Mapping[str, Plan]) -> None:
        """Build contenders, a few concurrently, within time and memory; warn of the others."""
        waiting = dict(plans)
        while waiting and not self.is_over():
            batch = self._next_batch(waiting)
            if not batch:
                name = next(iter(waiting))
                del waiting[name]
                self._left_out[_NO_ROOM].append(name)
                continue
            left_s = max(self.deadline - time.monotonic(), LEAST_BUILD_S)
            built = compiled_all(self.session, batch, min(left_s, BUILD_LIMIT_S))
            for name, plan in batch.items():
                del waiting[name]
                if name in built:
                    self._take_in(name, plan, built.pop(name))
        self._left_out[_NO_TIME] += waiting

    def _next_batch(self, waiting: Mapping[str, Plan]) -> dict[str, Plan]:
        """Choose the next plans that fit into memory, after a heat if needed; empty if none fit."""
        name, plan = next(iter(waiting.items()))
        if not self._has_room(plan):
            self._heat()
        batch: dict[str, Plan] = {}
        for name, plan in waiting.items():
            if len(batch) == AT_ONCE or not self._has_room(*batch.values(), plan):
                break
            batch[name] = plan
        return batch

    def _has_room(self, *plans: Plan) -> bool:
        """True if `plans` fit into memory; equal decisions share their packed weights."""
        give_back()  # free memory of the process would count as used
        kept = [self.entered[name].plan for name in self._alive]
        shared = {(id_, decision) for one in kept for id_, decision in one.decisions.items()}
        wanted = {(id_, decision) for one in plans for id_, decision in one.decisions.items()}
        further: Counter[SubgraphId] = Counter()
        for id_, decision in wanted - shared:
            further[id_] += self.memory.packed_bytes(id_, decision)
        known = {id_: self.memory.packed_bytes(id_, d) for id_, d in wanted & shared}
        return self.memory.has_room(further, known, len(plans))

    def _take_in(self, name: str, plan: Plan, model: CompiledModel) -> None:
        """Try and observe a model.

        A contender that takes too long is dropped; a slow chosen plan is kept without a race.
        """
        session = self.session
        self.tried.append(dict(plan.decisions))
        try:
            seconds = self._tried(name, plan, model)
        except TooSlow as error:
            if name == CHOSEN:
                raise LayoutselError(
                    f"the plan is not fit to run: {error}. Pin that sub-graph to another unit or "
                    f"layout, or allow more time (time_limit_s, --time-limit)"
                ) from error
            self._is_disturbed |= error.goes_on
            logger.warning("the contender %r is dropped from the race: %s", name, error)
            return
        build = partial(compiled, session, plan)
        self.entered[name] = Contender(name=name, plan=plan, build=build, built=model)
        self._watch(plan, model)
        if seconds <= _limit_s(plan):
            self._alive.append(name)
            return
        logger.warning(
            "the plan is dropped from the race: a run took %.1f s, predicted were %.1f ms",
            seconds,
            plan.run_us / 1e3,
        )
        self.measured[name] = Measured(median_us=1e6 * seconds, spread_us=0.0, runs=1)
        self.entered[name].retire()

    def _tried(self, name: str, plan: Plan, model: CompiledModel) -> float:
        """Measure the time of a run after the first, seconds; the chosen plan may take longer."""
        limit_s = self.session.options.time_limit_s if name == CHOSEN else _limit_s(plan)
        first_s = run_within(model, self.inputs, limit_s + FIRST_RUN_S)
        return min(first_s, run_within(model, self.inputs, limit_s))

    def _watch(self, plan: Plan, model: CompiledModel) -> None:
        observed = observe(model, self.inputs, budget_s=WATCH_S)
        residuals = attribute(plan, observed, observed.whole_us)
        self._watched.append(
            (
                plan.cost_us,
                [one for one in residuals.subgraphs if one.id not in model.header["fallbacks"]],
            )
        )

    def priced(self, problem: PlanningProblem) -> PlanningProblem:
        """Replace prices in `problem` by the times of sub-graphs within observed plans."""
        keys = {one.id: one.structural_hash for one in self.session.graph.subgraphs}
        seen = TimedSubgraphs(problem, keys)
        # The last observation counts: new plans will resemble the best plan most.
        for _, subgraphs in sorted(self._watched, key=lambda watched: -watched[0]):
            seen.add(subgraphs)
        return seen.priced()

    def ranked(self) -> list[Contender]:
        """Rank all built contenders, the best first, each with all measurements.

        A warning names plans that were left out.
        """
        for reason, names in self._left_out.items():
            if names:
                logger.warning(
                    "%d plans are not raced (%s): %s", len(names), ", ".join(names), reason
                )
        self._heat()
        order = sorted(self.measured, key=self._score)
        return [self._with_measured(self.entered[name]) for name in order]

    def _with_measured(self, contender: Contender) -> Contender:
        return replace(contender, plan=replace(contender.plan, measured=dict(self.measured)))

    def _score(self, name: str) -> tuple[bool, float, float]:
        """Compute the sort key of a contender, smallest for the best.

        Contenders of the last heat come first, as they beat the others; then the objective decides.
        """
        allowance = 1 - TIE if name == CHOSEN else 1.0
        time_us = self.measured[name].median_us * allowance
        rank = self._objective.measured_rank(
            self.problem, self.entered[name].plan.decisions, time_us
        )
        return name not in self._alive, *rank

    @property
    def _objective(self) -> Objective:
        return objective_of(self.problem.objective)

    def _heat(self) -> None:
        """Race the contenders in memory; only the best one stays there."""
        calls = {name: self.entered[name].model.timed_call(self.inputs) for name in self._alive}
        if calls:
            left_s = max(self.deadline - time.monotonic(), 0.0)
            is_time = self._objective.is_run_time
            drop_after = DROP_AFTER if is_time else None
            found = race(calls, drop_after=drop_after, limit_s=left_s)
            self.measured = {**_at_speed_of(found, self.measured), **found}
        calls.clear()
        best = min(self._alive, key=self._score, default=None)
        for name in self._alive:
            if name != best:
                self.entered[name].retire()
        self._alive = [name for name in self._alive if name == best]
        gc.collect()
        give_back()


def _at_speed_of(
    heat: Mapping[str, Measured], earlier: Mapping[str, Measured]
) -> dict[str, Measured]:
    """Convert earlier measurements to the speed of the machine in a later heat.

    The winner of the earlier heats is timed in both, so ratios to it hold although the speed
    changes.
    """
    ratios = [heat[name].median_us / earlier[name].median_us for name in heat if name in earlier]
    factor = statistics.median(ratios) if ratios else 1.0
    return {
        name: replace(one, median_us=factor * one.median_us, spread_us=factor * one.spread_us)
        for name, one in earlier.items()
    }


def _limit_s(plan: Plan) -> float:
    """Compute the time limit of a run of `plan`, seconds."""
    return SLOWER * plan.run_us / 1e6 + ALLOWED_S
