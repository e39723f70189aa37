"""Planning of exits: the arrangement of trunk and branches with the best expected latency.

The trunk alone on each worker is always among the arrangements, so that a plan is never expected to
be slower than it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.arrangement_checks import cost_faults
from layoutsel.exits.arrangement_search import (
    ArrangementOptions,
    ArrangementSearch,
    FoundArrangement,
)
from layoutsel.exits.exit_pins import all_options, pinned
from layoutsel.exits.exit_plan import SCHEMA_VERSION, ExitPlan, OtherArrangement
from layoutsel.exits.latencies import OBJECTIVES, LatencyModel
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.policy import Policy
from layoutsel.exits.simulate import TRUNK
from layoutsel.planning.pins import UnsatisfiedPin
from tvm_passes.errors import LayoutselError

TIME_LIMIT_S = 10.0
"""Default limit of the search, seconds."""


@dataclass(frozen=True, kw_only=True)
class ExitProblem:
    """A multi-exit network with E exits, and the requests to it."""

    exits: tuple[str, ...]
    """Names of the exits, the final one last."""
    costs: ExitCosts
    """Times on every kind of worker."""
    policy: Policy
    """Thresholds of the exits."""
    patterns: tuple[SurePattern, ...]
    """Observed patterns of sure exits; empty if nothing was observed."""
    answer: str = "first"
    """Entry of :data:`layoutsel.exits.answers.ANSWERS`."""
    objective: str = "mean"
    """Entry of :data:`layoutsel.exits.latencies.OBJECTIVES`."""


class SolvedExits(NamedTuple):
    """Best arrangement of a problem, and the search that found it."""

    model: LatencyModel
    """Latencies of arrangements."""
    search: ArrangementSearch
    """Values of arrangements."""
    options: ArrangementOptions
    """Workers of each stage within the pins."""
    baselines: Mapping[str, Arrangement]
    """Baselines by name, without regard to pins."""
    best: FoundArrangement
    """Best arrangement that was found."""


def plan_exits(
    problem: ExitProblem,
    *,
    model_name: str = "",
    model_hash: str = "",
    pins: Sequence[str] = (),
    time_limit_s: float = TIME_LIMIT_S,
) -> ExitPlan:
    """Find the best arrangement of a multi-exit network.

    The plan is proven to be the best within a relative 1e-9, or states its gap after the time
    limit. Exits that are never sure are off, unless others need them. Arrangements with equal
    values are in the order of the number of exits that run.

    Parameters
    ----------
    problem
        The network and its requests.
    model_name, model_hash
        Name and hash of the model.
    pins
        Prescribed workers, as in :func:`layoutsel.exits.exit_pins.pinned`.
    time_limit_s
        Limit of the whole search, seconds.

    Raises
    ------
    LayoutselError
        If the problem is inconsistent.
    UnsatisfiedPin
        If no arrangement keeps all pins.
    """
    model, search, options, baselines, best = solve(problem, pins, time_limit_s)
    forced = _forced(best.arrangement, options, search, problem.exits)
    return ExitPlan(
        schema_version=SCHEMA_VERSION,
        model_name=model_name,
        model_hash=model_hash,
        exits=problem.exits,
        policy=problem.policy,
        answer=problem.answer,
        objective=problem.objective,
        arrangement=best.arrangement,
        latencies=model.latencies(best.arrangement),
        bound_us=best.bound_us,
        patterns=problem.patterns,
        costs=model.simulator.costs,
        baselines=_others(baselines.items(), model),
        forced=_others(forced, model),
    )


def solve(
    problem: ExitProblem, pins: Sequence[str] = (), time_limit_s: float = TIME_LIMIT_S
) -> SolvedExits:
    """Find the best arrangement alone; arguments and errors are those of :func:`plan_exits`."""
    costs = with_patience(problem.costs, problem.policy)
    _check(problem)
    model = LatencyModel(costs, problem.policy, problem.patterns, answer=problem.answer)
    search = ArrangementSearch(
        model,
        answer=problem.answer,
        objective=problem.objective,
        deadline_s=time.monotonic() + time_limit_s,
    )
    every = all_options(costs, model.may_answer.tolist())
    options = pinned(every, pins, costs, problem.exits)
    baselines = dict(_baselines(every, search))
    best = search.best(options, [*baselines.values(), *_simple(options)])
    if best is None:
        raise UnsatisfiedPin(
            f"no arrangement on {costs.cores} cores keeps the pins {', '.join(map(repr, pins))}. "
            f"Pin fewer stages, or to workers with fewer cores"
        )
    return SolvedExits(model, search, options, baselines, best)


def with_patience(costs: ExitCosts, policy: Policy) -> ExitCosts:
    """Costs in which each branch also needs the earlier exits that its patience reads."""
    if policy.patience is None:
        return costs
    counted = [number for number, one in enumerate(policy.thresholds[:-1]) if one is not None]
    needs = [set(read) for read in costs.needs]
    for index, number in enumerate(counted):
        needs[number] |= set(counted[max(0, index + 1 - policy.patience) : index])
    return replace(costs, needs=tuple(tuple(sorted(read)) for read in needs))


def _check(problem: ExitProblem) -> None:
    """Reject inconsistent problems."""
    for path, got, expected in cost_faults(problem.costs):
        raise LayoutselError(f"costs of exits: at {path}: got {got}; expected {expected}")
    count = len(problem.exits)
    lengths = {
        "costs": len(problem.costs.needs) + 1,
        "policy": len(problem.policy.thresholds),
    }
    for name, length in lengths.items():
        if length != count:
            raise LayoutselError(
                f"the {name} has {length} exits; expected {count}: {', '.join(problem.exits)}"
            )
    check_choices(problem.answer, problem.objective)


def check_choices(answer: str, objective: str) -> None:
    """Reject an unknown answer or objective.

    Raises
    ------
    LayoutselError
        If one is unknown.
    """
    for name, value, known in (
        ("answer", answer, ANSWERS),
        ("objective", objective, OBJECTIVES),
    ):
        if value not in known:
            raise LayoutselError(f"{name}: got {value!r}; expected one of {', '.join(known)}")


def _baselines(
    options: ArrangementOptions, search: ArrangementSearch
) -> Iterator[tuple[str, Arrangement]]:
    """Yield the trunk alone on each worker, and the best sequence and the best two workers."""
    off = tuple(None for _ in options.branches)
    alone = [Arrangement(trunk=worker, branches=off) for worker in options.trunk]
    for one in filter(search.is_possible, alone):
        yield f"exits off, trunk on {one.trunk}", one
    whole = [
        Arrangement(trunk=trunk, branches=_all_on(options, worker))
        for trunk in options.trunk
        for worker in dict.fromkeys(one for of in options.branches for one in of if one)
    ]
    for name, chosen in (
        ("all exits in sequence", [one for one in whole if one.trunk in one.branches]),
        ("all exits beside the trunk", [one for one in whole if one.trunk not in one.branches]),
    ):
        possible = [one for one in chosen if search.is_possible(one)]
        if possible:
            yield name, min(possible, key=search.value_us)


def _all_on(options: ArrangementOptions, worker: str) -> tuple[str | None, ...]:
    """Branches on one worker; those that no answer needs are off."""
    return tuple(worker if worker in of else None for of in options.branches)


def _simple(options: ArrangementOptions) -> Iterator[Arrangement]:
    """Yield arrangements with few exits within pins, from which a search can start."""
    for trunk in options.trunk:
        for choose in (0, -1):
            yield Arrangement(trunk=trunk, branches=tuple(of[choose] for of in options.branches))
        yield Arrangement(
            trunk=trunk,
            branches=tuple(trunk if trunk in of else of[0] for of in options.branches),
        )


def _forced(
    best: Arrangement,
    options: ArrangementOptions,
    search: ArrangementSearch,
    exits: Sequence[str],
) -> Iterator[tuple[str, Arrangement]]:
    """Yield the best arrangements with another worker for one stage, or with one exit off."""
    places: list[tuple[int | None, str, str | None, tuple[str | None, ...]]] = [
        (None, TRUNK, best.trunk, options.trunk)
    ]
    places += [
        (number, exits[number], best.branches[number], of)
        for number, of in enumerate(options.branches)
    ]
    for place, stage, own, workers in places:
        for worker in workers:
            if worker == own:
                continue
            near = (
                replace(best, trunk=worker or best.trunk)
                if place is None
                else replace(
                    best, branches=(*best.branches[:place], worker, *best.branches[place + 1 :])
                )
            )
            narrow = options.narrowed(place, [worker])
            found = search.best(narrow, [near, *_simple(narrow)])
            if found is not None:
                yield f"{stage} {'off' if worker is None else f'on {worker}'}", found.arrangement


def _others(
    named: Iterable[tuple[str, Arrangement]], model: LatencyModel
) -> tuple[OtherArrangement, ...]:
    return tuple(
        OtherArrangement(name=name, arrangement=one, latencies=model.latencies(one))
        for name, one in named
    )
