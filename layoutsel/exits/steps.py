"""Steps from a multi-exit network to an exit plan, and from the plan to a model that runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from layoutsel.errors import LayoutselError
from layoutsel.exits.building import RACE_S, build, profiled
from layoutsel.exits.costs import PricedExits, priced
from layoutsel.exits.device_workers import CANCEL_WITHIN_US
from layoutsel.exits.dividing import divide
from layoutsel.exits.executor import LIMIT_S, ExitModel
from layoutsel.exits.exit_plan import RENEW, ExitPlan
from layoutsel.exits.load_aware_building import build_for_loads, table_for
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.network import ExitNetwork
from layoutsel.exits.patterns import patterns_of
from layoutsel.exits.planner import TIME_LIMIT_S, ExitProblem, check_choices, plan_exits
from layoutsel.exits.policy import Policy
from layoutsel.runtime.compiled import CompiledModel


def plan(  # noqa: PLR0913 - the whole job has that many choices, each with a default
    network: ExitNetwork,
    policy: Policy,
    seen: ExitMatrix | None = None,
    *,
    units: Sequence[str] | None = None,
    threads: int | None = None,
    objective: str = "mean",
    answer: str = "first",
    pins: Sequence[str] = (),
    measure: bool = True,
    time_limit_s: float = TIME_LIMIT_S,
    cancel_within_us: float = CANCEL_WITHIN_US,
    **options: Any,
) -> ExitPlan:
    """Choose the exits that run, and the workers of trunk and branches, for a network.

    The whole network is planned for each number of threads, and for each device of the units. With
    `measure`, it is also compiled for each, and the predicted times are corrected by short runs.

    Parameters
    ----------
    network
        The network.
    policy
        Thresholds of its exits.
    seen
        Observations whose patterns of sure exits are weighed; None to plan for requests of which no
        exit is sure.
    units
        Compute units to choose from; all of the host if None. Each device of a unit, such as
        ``opencl``, is one more worker.
    threads
        Number of cores that all workers together may use; those of this process if None.
    objective
        Latency to minimise: an entry of :data:`layoutsel.exits.latencies.OBJECTIVES`.
    answer
        Entry of :data:`layoutsel.exits.answers.ANSWERS`.
    pins
        Prescribed workers, as in :func:`layoutsel.exits.exit_pins.pinned`.
    measure
        False to trust the cost model, and take hand-overs as free.
    time_limit_s
        Limit of the search for the arrangement, seconds.
    cancel_within_us
        Time in which a cancelled device ends the work in its queue, microseconds: the queue holds
        as few sub-graphs as that takes by their times, and at least one.
    **options
        Other options of :func:`layoutsel.plan` except `pins`.

    Raises
    ------
    LayoutselError
        If the parts do not fit each other, or the network cannot be planned.
    UnsatisfiedPin
        If no arrangement keeps all pins.
    """
    network = network.with_policy(policy)
    if seen is not None:
        seen.check_model(network.spec.model_hash)
    patterns = () if seen is None else patterns_of(policy.sure(seen))
    check_choices(answer, objective)
    price = profiled if measure else priced
    found = price(
        network, units=units, threads=threads, cancel_within_us=cancel_within_us, **options
    )
    problem = ExitProblem(
        exits=network.names,
        costs=found.costs,
        policy=policy,
        patterns=patterns,
        answer=answer,
        objective=objective,
    )
    made = plan_exits(
        problem,
        model_name=network.name,
        model_hash=network.spec.model_hash,
        pins=pins,
        time_limit_s=time_limit_s,
    )
    plans = {str(count): one for count, one in found.plans.items()}
    return replace(made, plans=plans | dict(found.devices))


def compile(
    network: ExitNetwork,
    plan: ExitPlan,
    *,
    race_s: float = RACE_S,
    limit_s: float = LIMIT_S,
    batch: int = 1,
    **options: Any,
) -> ExitModel:
    """Compile a network as planned, unless a race shows that a simpler arrangement is faster.

    Parameters
    ----------
    network
        Network that the plan was made for.
    plan
        Plan of :func:`plan`.
    race_s
        Time limit of the race, seconds; 0 to build as planned.
    limit_s
        Time limit of a request on a worker, seconds.
    batch
        Largest number of requests that a server may answer at once, if that pays.
    **options
        Options of :func:`layoutsel.compile_plan`.

    Raises
    ------
    PlanMismatch
        If the plan is of another network.
    NoBatches
        If `batch` is above 1, and the network or the arrangement takes no batches.
    LayoutselError
        If the plan has no plans of the whole network, or cannot be built.
    """
    network = network.with_policy(plan.policy)
    found = _priced(network, plan)
    return build(network, found, plan, race_s=race_s, limit_s=limit_s, batch=batch, **options)


def compile_for_loads(
    network: ExitNetwork,
    plan: ExitPlan,
    seen: ExitMatrix | None = None,
    *,
    race_s: float = RACE_S,
    batch: int = 1,
    **options: Any,
) -> CompiledModel:
    """Compile a network once, with a table of the arrangements to use by the load of the machine.

    Save the result, and open the file with
    :func:`~layoutsel.exits.load_aware_building.open_for_loads`.

    Parameters
    ----------
    network
        Network that the plan was made for.
    plan
        Plan of :func:`plan` for an idle machine.
    seen
        Observations of the calibration, for the audit of the accuracy.
    race_s
        Time limit of the measurement of all arrangements, seconds; 0 to trust the predictions.
    batch
        Largest number of requests that a server may answer at once, if that pays.
    **options
        Options of :func:`layoutsel.compile_plan`.

    Raises
    ------
    PlanMismatch
        If the plan is of another network.
    NoBatches
        If `batch` is above 1, and the network or the arrangement takes no batches.
    LayoutselError
        If the plan has no plans of the whole network, or cannot be built.
    """
    network = network.with_policy(plan.policy)
    found = _priced(network, plan)
    table = table_for(plan)
    return build_for_loads(
        network, found, plan, table, seen=seen, race_s=race_s, batch=batch, **options
    )


def _priced(network: ExitNetwork, plan: ExitPlan) -> PricedExits:
    """Plans and division that an exit plan was made of; rejects a plan without them."""
    plan.check_model(network.spec.model_hash)
    if not plan.plans:
        raise LayoutselError(
            f"the exit plan of {plan.model_name} holds no plan of the whole network, as those "
            f"inside artifacts: expected one for each number of threads. {RENEW}"
        )
    names = {kind.name for kind in plan.costs.workers if kind.device}
    plans = {int(name): one for name, one in plan.plans.items() if name not in names}
    devices = {name: one for name, one in plan.plans.items() if name in names}
    first = next(iter(plans.values()))
    division = divide(first.reads, first.results, len(network.names))
    return PricedExits(plans=plans, division=division, costs=plan.costs, devices=devices)
