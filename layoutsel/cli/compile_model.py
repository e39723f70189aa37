"""``layoutsel compile``: plan, build, verify and save."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.activity import Activity, activity
from layoutsel.cli.options import (
    BudgetOption,
    CacheOption,
    CalibOption,
    CostModelOption,
    CostOption,
    FallbackOption,
    LimitOption,
    LinksFlag,
    LogsOption,
    MaxErrorOption,
    MemoryLimitOption,
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
from layoutsel.core.precision import check_budget, precision_mode
from layoutsel.device.artifact_header import LEAST_BYTES, check_name
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from layoutsel.compile.options import Options
    from layoutsel.compile.session import Session
    from layoutsel.runtime.compiled import CompiledModel


def compile_model(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Compiled model to write.",
            show_default=False,
        ),
    ],
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="Plan to build, perhaps edited, instead of planning."
        ),
    ] = None,
    allow_foreign_plan: Annotated[
        bool,
        typer.Option(
            "--allow-foreign-plan",
            help="Accept a plan for another machine, if this one supports its decisions.",
        ),
    ] = False,
    strategy: StrategyOption = "joint",
    cost: CostOption = "auto",
    measure_budget: BudgetOption = None,
    cost_model: CostModelOption = None,
    pin: PinsOption = None,
    precision: PrecisionOption = "f32",
    max_rel_error: MaxErrorOption = None,
    calib: CalibOption = None,
    units: UnitsOption = None,
    threads: ThreadsOption = None,
    shape: ShapeOption = None,
    cache: CacheOption = None,
    logs: LogsOption = None,
    fallback: FallbackOption = None,
    objective: ObjectiveOption = None,
    parallel: ParallelFlag = False,
    time_limit: TimeLimitOption = None,
    memory_limit: MemoryLimitOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="Adapt the cost model first, on a machine that it has not seen: once, a minute.",
        ),
    ] = True,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the results with ONNX Runtime.")
    ] = True,
    verify_speed: Annotated[
        bool,
        typer.Option(
            "--verify-speed/--no-verify-speed",
            help="Time the plan against alternatives, and keep the fastest.",
        ),
    ] = True,
) -> None:
    """Compile a model into one file that holds code, weights, plan and checks."""
    check_output(output, LEAST_BYTES)
    check_name(output)
    if plan is not None and pin:
        raise LayoutselError("--plan and --pin exclude each other: a plan file is built as it is")
    if plan is not None and (precision != "f32" or max_rel_error is not None):
        raise LayoutselError(
            "--plan and --precision exclude each other: a plan file states its precision"
        )
    if plan is not None and (objective is not None or parallel):
        raise LayoutselError(
            "--plan excludes --objective and --parallel: a plan file states its objective"
        )
    if allow_foreign_plan and plan is None:
        raise LayoutselError("--allow-foreign-plan without --plan: expected a plan to build")
    check_budget(precision_mode(precision, max_rel_error), verify=verify)
    options = options_of(
        shape=shape,
        units=units,
        threads=threads,
        strategy=strategy,
        cost=cost,
        measure_budget=measure_budget,
        cost_model=cost_model,
        calibrate=calibrate,
        pin=pin,
        precision=precision,
        max_rel_error=max_rel_error,
        calib=calib,
        cache=cache,
        logs=logs,
        fallback=fallback,
        objective=objective,
        parallel=parallel,
        time_limit=time_limit,
        memory_limit=memory_limit,
        allow_external_links=allow_external_links,
        import_limit=import_limit,
        verify=verify,
        verify_speed=verify_speed,
    )
    # Devices take part only if the user or the plan names them.
    named = units is not None or plan is not None
    with terminal.quiet_allocator(with_devices=named), activity() as shown:
        if plan is not None:
            compiled = build_plan(
                model, options, plan, shown, allow_foreign_plan=allow_foreign_plan
            )
        else:
            compiled = build(model, options, shown)
        shown.phase(f"writing {output}")
        compiled.save(output)
    show_compiled(compiled, f"written to {output} ({output.stat().st_size / 1e6:,.1f} MB)")


def build(model: str, options: Options, shown: Activity) -> CompiledModel:
    """Plan and build a model."""
    from layoutsel.compile.fallback import with_fallback

    def finished(session: Session) -> CompiledModel:
        from layoutsel.compile.calibration import calibrate_first

        calibrate_first(session)
        problem, made = planned(session, shown)
        from layoutsel.compile.build_best import finish

        contenders = " and its contenders" if options.verify_speed else ""
        shown.phase(f"building the plan{contenders}")
        return finish(
            session, made, problem, verify=options.verify, verify_speed=options.verify_speed
        )

    return with_fallback(opened(model, options, shown), finished)


def build_plan(
    model: str, options: Options, file: Path, shown: Activity, *, allow_foreign_plan: bool = False
) -> CompiledModel:
    """Build the plan in `file`, with the options that it fixes (:func:`layoutsel.api.stated`)."""
    from layoutsel.planning.plan import Plan

    made = Plan.load(file)
    from layoutsel.api import build_as_planned, stated

    said = stated(made)
    said["threads"] = options.threads or said["threads"]
    said["units"] = options.units or said["units"]
    session = opened(model, replace(options, **said), shown)
    shown.phase("building the plan")
    return build_as_planned(
        session, made, verify=options.verify, allow_foreign_plan=allow_foreign_plan
    )


def show_compiled(compiled: CompiledModel, where: str) -> None:
    """Print plan, measurements and checks of a compiled model, and the line `where`."""
    from layoutsel.planning.plan import Plan
    from layoutsel.report.plan_tables import (
        check_lines,
        fallback_lines,
        measured_table,
        summary,
        trade_off_tables,
    )

    made = Plan.read(dict(compiled.plan), file="plan")
    terminal.show(summary(made))
    if made.measured:
        terminal.show("", measured_table(made))
    if made.residuals is not None:
        from layoutsel.report.residual_tables import residual_lines

        terminal.show("", *residual_lines(made, made.residuals))
    for id_, decision in compiled.header.get("fallbacks", {}).items():
        terminal.note("warning", f"sub-graph {id_} fell back to {decision}")
    terminal.show(*trade_off_tables(made))
    terminal.show_text("")
    for line in (*check_lines(compiled.checks), *fallback_lines(compiled.header)):
        terminal.show_text(line)
    terminal.show_text(where)
