"""``layoutsel compile``: plan, build, verify and save."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli import terminal
from layoutsel.cli.activity import Activity, activity
from layoutsel.cli.options import (
    BudgetOption,
    CacheOption,
    CostModelOption,
    CostOption,
    LogsOption,
    ModelArgument,
    PinsOption,
    ShapeOption,
    StrategyOption,
    ThreadsOption,
    UnitsOption,
    check_output,
)
from layoutsel.cli.planner import Wanted
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from layoutsel.runtime.compiled import CompiledModel


def compile_model(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write the compiled model.",
            show_default=False,
        ),
    ],
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="Build this plan, perhaps edited, instead of making one."
        ),
    ] = None,
    strategy: StrategyOption = "joint",
    cost: CostOption = "learned",
    measure_budget: BudgetOption = "20s",
    cost_model: CostModelOption = None,
    pin: PinsOption = None,
    units: UnitsOption = None,
    threads: ThreadsOption = None,
    shape: ShapeOption = None,
    cache: CacheOption = None,
    logs: LogsOption = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the results with ONNX Runtime.")
    ] = True,
    verify_speed: Annotated[
        bool,
        typer.Option(
            "--verify-speed/--no-verify-speed",
            help="Time the plan against the next best ones, and keep the fastest.",
        ),
    ] = True,
) -> None:
    """Compile a model into one file that holds code, weights, plan and checks."""
    check_output(output)
    if plan is not None and pin:
        raise LayoutselError("--plan and --pin exclude each other: a plan file is built as it is")
    wanted = Wanted(
        model=model,
        shapes=shape,
        units=units,
        threads=threads,
        strategy=strategy,
        cost=cost,
        measure_budget=measure_budget,
        cost_model=cost_model,
        pins=pin,
        cache=cache,
        logs=logs,
    )
    with activity() as shown:
        if plan is not None:
            compiled = build_plan(wanted, plan, shown, verify=verify)
        else:
            compiled = build(wanted, shown, verify=verify, verify_speed=verify_speed)
        shown.phase(f"writing {output}")
        compiled.save(output)
    show_compiled(compiled, f"written to {output} ({output.stat().st_size / 1e6:,.1f} MB)")


def build(
    wanted: Wanted, shown: Activity, *, verify: bool = True, verify_speed: bool = True
) -> CompiledModel:
    """Plan and build."""
    session = wanted.open(shown)
    problem, made = wanted.plan(session, shown)
    from layoutsel.api import finish

    rivals = " and its rivals" if verify_speed else ""
    shown.phase(f"building the plan{rivals}")
    return finish(session, made, problem if verify_speed else None, verify=verify)


def build_plan(wanted: Wanted, file: Path, shown: Activity, *, verify: bool) -> CompiledModel:
    """Build what the plan in `file` says."""
    from layoutsel.planning.plan import Plan

    made = Plan.load(file)
    session = replace(wanted, threads=wanted.threads or made.threads).open(shown)
    shown.phase("building the plan")
    from layoutsel.api import build_as_planned

    return build_as_planned(session, made, verify=verify)


def show_compiled(compiled: CompiledModel, where: str) -> None:
    """Print what was built, how it was checked and where it is."""
    from layoutsel.cli.plan_tables import measured_table, summary
    from layoutsel.planning import documents
    from layoutsel.planning.plan import Plan

    made = documents.from_json(Plan, dict(compiled.plan), file="plan")
    terminal.show(summary(made))
    if made.measured:
        terminal.show("", measured_table(made))
    if made.residuals is not None:
        from layoutsel.cli.residual_tables import residual_lines

        terminal.show("", *residual_lines(made, made.residuals))
    for id_, decision in compiled.header.get("fallbacks", {}).items():
        terminal.note("warning", f"sub-graph {id_} fell back to {decision}")
    terminal.show_text("")
    for check in compiled.checks:
        terminal.show_text(
            f"verified {check['output']!r} against {check['reference']}: "
            f"relative L2 error {check['rel_l2_err']:.1e}"
        )
    terminal.show_text(where)
