"""Multi-exit networks as compiled models, measured against the trunk alone, saved and loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from layoutsel import documents
from layoutsel.exits.arrangement import Arrangement, devices_in
from layoutsel.exits.batch_building import add_batches
from layoutsel.exits.costs import PricedExits, priced
from layoutsel.exits.executor import LIMIT_S, ExitModel
from layoutsel.exits.exit_code import ExitCode
from layoutsel.exits.exit_plan import ExitPlan, ExitRace, OtherArrangement
from layoutsel.exits.measured_costs import measured
from layoutsel.exits.measured_devices import with_devices
from layoutsel.exits.network import ExitNetwork
from layoutsel.exits.racing import TimedPlan, race
from layoutsel.exits.trunk_here import pays
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.loading import load as load_compiled
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)

HEADER = "exits"
"""Entry of an artifact's header: the exit plan."""
RACE_S = 5.0
"""Default time limit of a race, seconds."""
_NEAR = 1.15
"""Factor on the time of the plan within which a prediction may be wrong."""


def profiled(network: ExitNetwork, **options: Any) -> PricedExits:
    """Price a network by the cost model, and correct the costs by measurements on this machine.

    The network is compiled once for every number of threads, and for every device alone and with
    each number of threads.

    Parameters
    ----------
    network
        A multi-exit network.
    **options
        Options of :func:`~layoutsel.exits.costs.priced`.

    Raises
    ------
    LayoutselError
        If the network cannot be planned or built.
    """
    found = priced(network, **options)
    code = ExitCode(network=network, found=found, options={"verify": False})
    costs = measured(found.costs, {threads: code.on_host(threads) for threads in found.plans})
    return found.with_costs(with_devices(costs, code))


def build(
    network: ExitNetwork,
    found: PricedExits,
    plan: ExitPlan,
    *,
    race_s: float = RACE_S,
    limit_s: float = LIMIT_S,
    batch: int = 1,
    **options: Any,
) -> ExitModel:
    """Compile a network as planned, unless the trunk alone or all exits in sequence are faster.

    The arrangements are timed in alternation on the observed patterns of sure exits. So the result
    is never slower than the trunk alone, as far as the measurement can tell.

    Parameters
    ----------
    network
        The network.
    found
        Its plans and division.
    plan
        Plan of the exits.
    race_s
        Time limit of the measurement, seconds; 0 to build as planned without it.
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
        If a plan cannot be built.
    """
    plan.check_model(network.spec.model_hash)
    plans = {"planned": plan}
    if race_s > 0:
        plans |= {one.name: _as_plan(plan, one) for one in _rivals(plan)}
    models: dict[str, ExitModel] = {}
    code = ExitCode(network=network, found=found, options=options)
    try:
        for name, one in plans.items():
            models[name] = model_of(_with_fallback(code, one), one, limit_s=limit_s)
        times = race(models, plan, race_s) if len(models) > 1 else {}
    except BaseException:
        for model in models.values():
            model.close()
        raise
    best = min(times, key=lambda name: times[name].us, default="planned")
    if best != "planned":
        logger.warning(
            "%s is faster than the planned arrangement: %.0f against %.0f us (%s); it is kept",
            best, times[best].us, times["planned"].us, plan.objective,
        )  # fmt: skip
    for name, model in models.items():
        if name != best:
            model.close()
    chosen = models[best]
    kept = replace(
        plans[best],
        plans={},  # the artifact holds the one that it was built by
        race=_race_of(times, best) if times else None,
    )
    chosen.compiled.header[HEADER] = documents.to_json(kept)
    if batch > 1:
        add_batches(chosen, network, found, kept, batch, **options)
    return chosen


def model_of(
    compiled: CompiledModel,
    plan: ExitPlan,
    *,
    limit_s: float = LIMIT_S,
    others: Sequence[Arrangement] = (),
) -> ExitModel:
    """Make a model of a compiled network as its plan arranges it, and with other arrangements."""
    return ExitModel(
        compiled,
        plan.exits,
        plan.arrangement,
        plan.policy,
        workers=plan.costs.workers,
        answer=plan.answer,
        limit_s=limit_s,
        others=others,
        trunk_here=pays(plan.costs),
    )


def plan_in(header: Mapping[str, Any], where: str) -> ExitPlan:
    """Read the exit plan in an artifact's header, with the race that it was chosen by.

    Parameters
    ----------
    header
        Header of the artifact.
    where
        Name of the artifact, for error messages.

    Raises
    ------
    LayoutselError
        If the artifact is that of a network without exits, or its plan is inconsistent.
    """
    if HEADER not in header:
        raise LayoutselError(
            f"{where} is the artifact of a network without exits: expected one that "
            "'layoutsel exits compile' wrote; run this one with 'layoutsel run'"
        )
    return ExitPlan.read(header[HEADER], file=where)


def load(path: str | Path, *, limit_s: float = LIMIT_S) -> ExitModel:
    """Open a saved multi-exit network, without planning or compiling.

    Parameters
    ----------
    path
        File that :meth:`ExitModel.save` wrote. It holds native code: load only trusted files.
    limit_s
        Time limit of a request on a worker, seconds.

    Raises
    ------
    LayoutselError
        If the file is not the artifact of a multi-exit network, or is damaged.
    """
    compiled = load_compiled(path)
    return model_of(compiled, plan_in(compiled.header, str(path)), limit_s=limit_s)


def _with_fallback(code: ExitCode, plan: ExitPlan) -> CompiledModel:
    """Compile an arrangement; if it uses a device, the host's trunk alone is its fallback."""
    compiled = code.of(plan.arrangement)
    if not devices_in(plan.arrangement, plan.costs.workers):
        return compiled
    alone = min(
        (one for one in plan.baselines if _is_host_alone(plan, one)),
        key=partial(_value_us, plan),
    )
    fallback = code.of(alone.arrangement)
    own = replace(_as_plan(plan, alone), plans={})
    fallback.header[HEADER] = documents.to_json(own)
    compiled.fall_back_to(fallback)
    return compiled


def _is_host_alone(plan: ExitPlan, other: OtherArrangement) -> bool:
    """True for the trunk alone on the host."""
    one = other.arrangement
    return not any(one.branches) and not devices_in(one, plan.costs.workers)


def _race_of(times: Mapping[str, TimedPlan], kept: str) -> ExitRace:
    return ExitRace(
        times_us={name: one.us for name, one in times.items()},
        p95_us={name: one.p95_us for name, one in times.items()},
        kept=kept,
    )


def _rivals(plan: ExitPlan) -> Sequence[OtherArrangement]:
    """Best baselines: the trunk alone, all exits in sequence, and all exits parallel to the trunk.

    The last one, and those on devices, only if they are predicted to be nearly as fast as planned:
    they may need code of their own.
    """
    found: dict[tuple[bool, bool, bool], OtherArrangement] = {}
    planned_us = getattr(plan.latencies, f"{plan.objective}_us")
    for one in plan.baselines:
        arrangement, value = one.arrangement, _value_us(plan, one)
        is_there = bool(devices_in(arrangement, plan.costs.workers))
        if (arrangement.is_beside or is_there) and value > _NEAR * planned_us:
            continue
        kind = arrangement.is_beside, any(arrangement.branches), is_there
        if kind not in found or value < _value_us(plan, found[kind]):
            found[kind] = one
    return [one for one in found.values() if one.arrangement != plan.arrangement]


def _value_us(plan: ExitPlan, other: OtherArrangement) -> float:
    return float(getattr(other.latencies, f"{plan.objective}_us"))


def _as_plan(plan: ExitPlan, other: OtherArrangement) -> ExitPlan:
    # With pins, the bound is that of the arrangements that keep them; baselines need not.
    bound_us = min(plan.bound_us, _value_us(plan, other))
    return replace(
        plan, arrangement=other.arrangement, latencies=other.latencies, bound_us=bound_us
    )
