"""``layoutsel exits explain``: an exit plan, other choices, and arrangements by load."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.explain import header_of
from layoutsel.cli.options import JsonFlag
from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from layoutsel.exits.batch_times import BatchTimes
    from layoutsel.exits.exit_plan import ExitPlan, OtherArrangement
    from layoutsel.exits.load_table import LoadTable


def explain(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Exit plan of 'layoutsel exits plan', or artifact of 'layoutsel exits compile'.",
            show_default=False,
        ),
    ],
    forced: Annotated[
        str | None,
        typer.Option(
            "--forced",
            metavar="STAGE",
            help="Only what other workers would cost for the trunk or for one exit.",
            show_default="all of them",
        ),
    ] = None,
    svg: Annotated[
        Path | None,
        typer.Option(
            "--svg",
            metavar="FILE",
            help="Gantt chart to write: a request with an early answer, and one without.",
            show_default=False,
        ),
    ] = None,
    load: Annotated[
        str | None,
        typer.Option(
            "--load",
            metavar="cpu=N",
            help="Only the arrangements for a load of N busy cores, such as cpu=0.5. Those of an "
            "artifact that was compiled for loads, else predicted ones.",
            show_default=False,
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Explain an exit plan: who runs what, why exits are off, what other choices would cost."""
    check_output(svg)
    if forced is not None and load is not None:
        raise LayoutselError("--forced and --load: expected one of them")
    busy = None if load is None else parse_load(load)
    made, table, times = load_plan(file)
    if svg is not None:
        from layoutsel.exits.exit_gantt import predicted_requests, write_exit_gantt

        title = f"{made.model_name or 'network'}: requests to the exit plan, predicted"
        write_exit_gantt(predicted_requests(made), made.exits, svg, title=title)
    if busy is not None:
        show_choices(made, table, busy, json=json)
    elif forced is not None:
        show_forced(made, forced, json=json)
    else:
        show_all(made, table, times, json=json)
    if svg is not None and not json:
        terminal.show_text(f"chart written to {svg}")


def show_all(
    plan: ExitPlan, table: LoadTable | None, times: BatchTimes | None, *, json: bool
) -> None:
    """Print a plan, its table of arrangements by load, and its batches, if any."""
    if json:
        from layoutsel import documents

        others = {"by_load": table, "batches": times}
        found = {name: documents.to_json(one) for name, one in others.items() if one is not None}
        terminal.show_json({**documents.to_json(plan), **found})
        return
    from layoutsel.exits.explain import batch_line, explanation
    from layoutsel.exits.explain_loads import loads_explanation

    terminal.show(*explanation(plan))
    if table is not None:
        terminal.show("", *loads_explanation(table, plan.exits))
    if times is not None:
        terminal.show("", batch_line(times))


def show_forced(plan: ExitPlan, stage: str, *, json: bool) -> None:
    """Print other choices for a stage."""
    others = others_of(plan, stage)
    if json:
        from layoutsel import documents

        terminal.show_json(documents.to_json(others))
        return
    from layoutsel.exits.explain import forced_table

    terminal.show(forced_table(plan, others))


def show_choices(plan: ExitPlan, table: LoadTable | None, busy: float, *, json: bool) -> None:
    """Print the arrangements for a number of busy cores; predicted ones if there is no table."""
    from layoutsel.exits.explain_loads import choices_document, choices_explanation
    from layoutsel.exits.load_aware_building import table_for

    table = table or table_for(plan)
    cell = table.grid.cell(table.grid.on_last(busy))
    if json:
        terminal.show_json(choices_document(table, cell))
    else:
        terminal.show(*choices_explanation(table, cell))


def parse_load(text: str) -> float:
    """Parse ``cpu=0.5`` as a number of busy cores.

    Raises
    ------
    LayoutselError
        If the text is nothing like it.
    """
    name, _, value = text.partition("=")
    try:
        busy = float(value)
    except ValueError:
        busy = math.nan
    if name != "cpu" or not busy >= 0:
        raise LayoutselError(
            f"--load {text}: expected cpu= and the number of busy cores, such as cpu=0.5"
        )
    return busy


def load_plan(file: Path) -> tuple[ExitPlan, LoadTable | None, BatchTimes | None]:
    """Read the exit plan of a plan file or of an artifact, with its table by load and its batches.

    Raises
    ------
    LayoutselError
        If the file is neither.
    """
    from layoutsel.exits.exit_plan import ExitPlan

    header = header_of(file)
    if header is None:
        return ExitPlan.load(file), None, None
    from layoutsel.exits.batch_times import times_in
    from layoutsel.exits.building import plan_in
    from layoutsel.exits.load_aware_building import table_in

    plan = plan_in(header, str(file))
    return plan, table_in(header, plan, str(file)), times_in(header, str(file))


def others_of(plan: ExitPlan, stage: str) -> tuple[OtherArrangement, ...]:
    """Other choices for the trunk or an exit.

    Raises
    ------
    LayoutselError
        If the plan has no such stage, or no other choice for it.
    """
    known = list(dict.fromkeys(one.name.split()[0] for one in plan.forced))
    if stage not in known:
        raise LayoutselError(
            f"--forced {stage}: the plan has no other choice for it; expected one of "
            f"{', '.join(known) or 'nothing: every stage is pinned'}"
        )
    return tuple(one for one in plan.forced if one.name.split()[0] == stage)
