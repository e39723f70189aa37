"""``layoutsel plan``: choose unit, layout and precision of every sub-graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.options import (
    BudgetOption,
    CacheOption,
    CostModelOption,
    CostOption,
    LimitOption,
    LinksFlag,
    LogsOption,
    MachineOption,
    MaxErrorOption,
    ModelArgument,
    ObjectiveOption,
    ParallelFlag,
    PinsOption,
    PrecisionOption,
    ShapeOption,
    StrategyOption,
    ThreadsOption,
    TimeLimitOption,
    UnitsOption,
)
from layoutsel.cli.planner import opened, options_of, planned
from layoutsel.core.files import check_output
from layoutsel.report import terminal


def plan(
    model: ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Plan to write (JSON)."),
    ] = None,
    strategy: StrategyOption = "joint",
    cost: CostOption = "learned",
    measure_budget: BudgetOption = None,
    cost_model: CostModelOption = None,
    pin: PinsOption = None,
    precision: PrecisionOption = "f32",
    max_rel_error: MaxErrorOption = None,
    units: UnitsOption = None,
    threads: ThreadsOption = None,
    shape: ShapeOption = None,
    cache: CacheOption = None,
    logs: LogsOption = None,
    machine: MachineOption = None,
    objective: ObjectiveOption = None,
    parallel: ParallelFlag = False,
    time_limit: TimeLimitOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
) -> None:
    """Choose unit, layout and precision of every sub-graph; print and save the plan."""
    check_output(output)
    options = options_of(
        shape=shape,
        units=units,
        threads=threads,
        strategy=strategy,
        cost=cost,
        measure_budget=measure_budget,
        cost_model=cost_model,
        pin=pin,
        precision=precision,
        max_rel_error=max_rel_error,
        cache=cache,
        logs=logs,
        machine=machine,
        objective=objective,
        parallel=parallel,
        time_limit=time_limit,
        allow_external_links=allow_external_links,
        import_limit=import_limit,
    )
    with activity() as shown:
        _, made = planned(opened(model, options, shown), shown)
    if output is not None:
        made.save(output)
    from layoutsel.report.plan_tables import plan_table, summary, trade_off_tables

    terminal.show(plan_table(made), summary(made), *trade_off_tables(made))
    if output is not None:
        terminal.show_text(f"plan written to {output}")
