"""Artifacts with a table of arrangements by load: made, measured, saved in the header, opened."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from layoutsel import documents
from layoutsel.device.core_load import CoreLoad
from layoutsel.device.load_monitor import LoadMonitor
from layoutsel.errors import LayoutselError
from layoutsel.exits.arrangement import devices_in, host_costs
from layoutsel.exits.audit import ERROR, SHARE, ExitAudit, allowed_disagreement
from layoutsel.exits.batch_building import add_batches
from layoutsel.exits.building import (
    HEADER,
    RACE_S,
    model_of,
    plan_in,
)
from layoutsel.exits.controller import PlanController
from layoutsel.exits.costs import PricedExits
from layoutsel.exits.executor import LIMIT_S, ExitModel
from layoutsel.exits.exit_code import compiled_for
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.load_aware import LoadAwareModel
from layoutsel.exits.load_grid import LoadGrid
from layoutsel.exits.load_table import LoadTable
from layoutsel.exits.loaded_costs import loaded_costs
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.network import ExitNetwork
from layoutsel.exits.planner import ExitProblem
from layoutsel.exits.racing import timed_in_turns
from layoutsel.exits.table_planning import CostsAt, make_table
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.loading import load as load_compiled
from layoutsel.runtime.samples import random_inputs

TABLE = "exit_table"
"""Entry of an artifact's header: the table of arrangements by load, a :class:`LoadTable`."""
ALLOWED = "exit_disagreement"
"""Entry of an artifact's header: share of requests in which sure exits may differ from the final.

It is null if no accuracy was promised.
"""
_IDLE_S = 0.2
"""Time over which the load before a race is measured, seconds."""


def table_for(plan: ExitPlan, costs_at: CostsAt | None = None, **options: Any) -> LoadTable:
    """Make the table of arrangements by load for a planned network, on the host's workers.

    Parameters
    ----------
    plan
        Plan for an idle host.
    costs_at
        Times of the network by load; if None, estimates on top of the plan's costs.
    **options
        Options of :func:`~layoutsel.exits.table_planning.make_table`.

    Raises
    ------
    LayoutselError
        If the plan is inconsistent.
    """
    costs = host_costs(plan.costs)
    problem = ExitProblem(
        exits=plan.exits,
        costs=costs,
        policy=plan.policy,
        patterns=plan.patterns,
        answer=plan.answer,
        objective=plan.objective,
    )
    grid = LoadGrid.of_host(costs.cores)
    return make_table(problem, costs_at or loaded_costs(costs, problem.answer), grid, **options)


def build_for_loads(
    network: ExitNetwork,
    found: PricedExits,
    plan: ExitPlan,
    table: LoadTable,
    *,
    seen: ExitMatrix | None = None,
    race_s: float = RACE_S,
    batch: int = 1,
    **options: Any,
) -> CompiledModel:
    """Compile a network once for all arrangements of a table, and measure each of them.

    The trunk alone is measured as well. An arrangement that is slower than it, as far as the
    measurement can tell, is not chosen. Save the result as an artifact, or open it directly.

    Parameters
    ----------
    network
        The network.
    found
        Its plans and division.
    plan
        Plan for an idle host; the code is that of the plan for the threads of its trunk.
    table
        Arrangements by load.
    seen
        Observations of the calibration, for the audit's expectation.
    race_s
        Time limit of the measurement, seconds; 0 to trust the predictions.
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
        If the plan cannot be built, or uses a device.
    """
    plan.check_model(network.spec.model_hash)
    if devices := devices_in(plan.arrangement, plan.costs.workers):
        raise LayoutselError(
            f"a table by load holds arrangements on the host's workers: got a plan with stages on "
            f"{', '.join(devices)}; expected one on the host. Plan with units of the host alone, "
            "or compile without --for-loads"
        )
    threads = {kind.name: kind.threads for kind in found.costs.workers}
    compiled = compiled_for(network, found, threads[plan.arrangement.trunk], **options)
    if race_s > 0:
        with model_of(compiled, plan, others=table.arrangements) as model:
            table = _measured(model, plan, table, race_s)
    compiled.header |= {
        HEADER: documents.to_json(replace(plan, plans={})),  # the artifact holds the built one
        TABLE: documents.to_json(table),
        ALLOWED: allowed_disagreement(plan.policy, seen),
    }
    if batch > 1:
        # More threads would be those that another process may need.
        own = replace(found, plans={compiled.threads: found.plans[compiled.threads]})
        with model_of(compiled, plan) as model:
            add_batches(model, network, own, plan, batch, **options)
    return compiled


def open_artifact(path: Path | str) -> ExitModel | LoadAwareModel:
    """Open an artifact: one that was compiled for loads adapts to them.

    Parameters
    ----------
    path
        Artifact of a multi-exit network. It holds native code: load only trusted files.

    Raises
    ------
    LayoutselError
        If the file is no such artifact, or is damaged.
    """
    compiled = load_compiled(path)
    plan = plan_in(compiled.header, str(path))
    table = table_in(compiled.header, plan, str(path))
    return model_of(compiled, plan) if table is None else _adapting(compiled, plan, table)


def table_in(header: Mapping[str, Any], plan: ExitPlan, where: str) -> LoadTable | None:
    """Read the table of arrangements in an artifact's header; None if there is none.

    Parameters
    ----------
    header
        Header of the artifact.
    plan
        The plan in it.
    where
        Name of the artifact, for error messages.

    Raises
    ------
    LayoutselError
        If the table is inconsistent.
    """
    if TABLE not in header:
        return None
    return LoadTable.read(header[TABLE], plan.costs, file=where)


def open_for_loads(
    source: CompiledModel | Path | str,
    *,
    limit_s: float = LIMIT_S,
    audit_share: float = SHARE,
    audit_error: float = ERROR,
    monitor: LoadMonitor | None = None,
) -> LoadAwareModel:
    """Open a network that adapts to the load, without planning or compiling.

    Parameters
    ----------
    source
        Result of :func:`build_for_loads`, or the file that it was saved in. The file holds native
        code: load only trusted files.
    limit_s
        Time limit of a request on a worker, seconds.
    audit_share
        Share of requests that run all exits to their end; 0 for none.
    audit_error
        Probability of a false alarm of the audit over any number of requests.
    monitor
        Source of the load; a new one if None.

    Raises
    ------
    LayoutselError
        If the source has no table of arrangements, or is damaged.
    """
    compiled = source if isinstance(source, CompiledModel) else load_compiled(source)
    file = "the compiled network" if isinstance(source, CompiledModel) else str(source)
    plan = plan_in(compiled.header, file)
    table = table_in(compiled.header, plan, file)
    if table is None:
        raise LayoutselError(
            f"{file} has no table of arrangements by load: expected one that was compiled for "
            "loads; open this one with layoutsel.exits.load"
        )
    return _adapting(
        compiled,
        plan,
        table,
        limit_s=limit_s,
        audit_share=audit_share,
        audit_error=audit_error,
        monitor=monitor,
    )


def _adapting(
    compiled: CompiledModel,
    plan: ExitPlan,
    table: LoadTable,
    *,
    limit_s: float = LIMIT_S,
    audit_share: float = SHARE,
    audit_error: float = ERROR,
    monitor: LoadMonitor | None = None,
) -> LoadAwareModel:
    """Open a network with its table; arguments are those of :func:`open_for_loads`."""
    audit = ExitAudit(compiled.header.get(ALLOWED), share=audit_share, error=audit_error)
    model = model_of(compiled, plan, limit_s=limit_s, others=table.arrangements)
    return LoadAwareModel(model, table, PlanController(table, monitor), audit)


def _measured(model: ExitModel, plan: ExitPlan, table: LoadTable, limit_s: float) -> LoadTable:
    """Correct the predictions of all arrangements by answers under the present load."""
    inputs = random_inputs(model.compiled.inputs)
    runs = {
        one: partial(model.forced, inputs=inputs, arrangement=one) for one in table.arrangements
    }
    times = timed_in_turns(runs, plan, limit_s)
    return table.corrected(_load_now(), [times[one].us for one in table.arrangements])


def _load_now() -> CoreLoad:
    with LoadMonitor() as monitor:
        time.sleep(_IDLE_S)
        return monitor.load
