"""``layoutsel explain``: decisions of a plan with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.options import (
    CacheOption,
    JsonFlag,
    LimitOption,
    LinksFlag,
    LogsOption,
    MachineOption,
    ObjectiveOption,
    ShapeOption,
    ThreadsOption,
)
from layoutsel.cli.planner import opened, options_of
from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from layoutsel.compile.options import Options
    from layoutsel.planning.plan import Plan

_ELF = b"\x7fELF"
"""First bytes of a compiled model."""


def explain(
    plan: Annotated[
        Path,
        typer.Argument(metavar="PLAN", help="Plan file or compiled model.", show_default=False),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Model to price the plan for again, perhaps after edits.",
            show_default=False,
        ),
    ] = None,
    subgraph: Annotated[
        str | None,
        typer.Option(
            "--subgraph",
            metavar="ID",
            help="Sub-graph to describe in full.",
            show_default=False,
        ),
    ] = None,
    dot: Annotated[
        Path | None,
        typer.Option(
            "--dot",
            metavar="FILE",
            help="Graph to write, coloured by unit and layout; also as SVG if graphviz is there.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Run a compiled model, and compare times by sub-graph."),
    ] = False,
    shape: ShapeOption = None,
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    logs: LogsOption = None,
    machine: MachineOption = None,
    objective: ObjectiveOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
    json: JsonFlag = False,
) -> None:
    """Explain a plan: reasons, alternatives, boundaries, declines, and gain of joint choosing."""
    check_output(dot)
    if objective is not None and model is None:
        raise LayoutselError("--objective without --model: expected a model to price the plan for")
    made = load_plan(plan)
    if model is not None:
        made = _price_again(
            made,
            model,
            options_of(
                shape=shape,
                threads=threads or made.threads,
                precision=made.precision,
                max_rel_error=made.max_rel_error,
                objective=objective or made.objective,
                cache=cache,
                logs=logs,
                machine=machine,
                allow_external_links=allow_external_links,
                import_limit=import_limit,
            ),
        )
    if subgraph is not None and subgraph not in made.decisions:
        raise LayoutselError(
            f"the plan has no sub-graph {subgraph!r}; it has {_some(list(made.decisions))}"
        )
    measured = _measure(plan) if measure else {}
    _note_edits(made)
    if json:
        from layoutsel import documents

        terminal.show_json(documents.to_json(made))
    elif subgraph is not None:
        from layoutsel.report.explain_tables import show_subgraph

        show_subgraph(made, subgraph)
    else:
        from layoutsel.report.explain_tables import show_explanation

        show_explanation(made, measured)
        show_checks(plan)
    if dot is not None:
        from layoutsel.report.dot import write_dot

        write_dot(made, dot)


def load_plan(file: Path) -> Plan:
    """Read the plan of a plan file or of a compiled model.

    Raises
    ------
    LayoutselError
        If the file is neither.
    """
    from layoutsel.device.artifact_header import RENEW
    from layoutsel.planning.plan import Plan

    header = header_of(file)
    if header is None:
        return Plan.load(file)
    return Plan.read(header["plan"], file=str(file), renew=RENEW)


def header_of(file: Path) -> Mapping[str, Any] | None:
    """Read the header of a compiled model; None for any other file.

    Raises
    ------
    LayoutselError
        If the file is unreadable, or a damaged model.
    """
    try:
        with file.open("rb") as stream:
            is_artifact = stream.read(len(_ELF)) == _ELF
    except OSError as error:
        raise LayoutselError(f"cannot read {file}: {error.strerror}") from error
    if not is_artifact:
        return None
    from layoutsel.runtime import artifact

    return artifact.read(file).header


def show_checks(file: Path) -> None:
    """Print errors and fallback of a compiled model; nothing for a plan file."""
    from layoutsel.report.plan_tables import check_lines, fallback_lines

    header = header_of(file) or {}
    for line in (*check_lines(header.get("checks", ())), *fallback_lines(header)):
        terminal.show_text(line)


def _price_again(made: Plan, model: str, options: Options) -> Plan:
    """Price the plan's decisions again, and all alternatives."""
    with activity() as shown:
        cost = "roofline" if all(s.source == "roofline" for s in made.subgraphs) else "learned"
        session = opened(model, options, shown)
        from layoutsel.compile.make_plan import explained_plan
        from layoutsel.compile.measuring import cost_model
        from layoutsel.compile.offers import Offers
        from layoutsel.compile.pricing import priced_by
        from layoutsel.planning.attribute import predicted_again
        from layoutsel.planning.check_fits import check_fits
        from layoutsel.planning.solve import solve

        ids = session.graph.ids
        check_fits(made, model_hash=session.model.content_hash, ids=ids)
        shown.phase("pricing candidates")
        offers = Offers.of(session)
        with cost_model(offers, cost) as costs:
            problem = priced_by(offers, costs, cost)
        shown.phase("explaining")
        solution = replace(
            solve(problem),
            decisions=made.decisions,
            cost_us=problem.cost(made.decisions).total_us,
            solver=made.solver,
            time_s=made.time_s,
        )
        priced = explained_plan(session, problem, solution, made.strategy)
    residuals = None if made.residuals is None else predicted_again(made.residuals, priced)
    return replace(priced, measured=made.measured, residuals=residuals, trade_off=made.trade_off)


def _measure(file: Path) -> dict[str, float]:
    from layoutsel.runtime.loading import load
    from layoutsel.runtime.samples import random_inputs
    from layoutsel.runtime.trace import subgraph_times

    compiled = load(file)
    inputs = random_inputs(compiled.inputs)
    compiled.run_all(inputs)  # switches to the fallback if a device fails
    return subgraph_times(compiled.running, inputs)


def _note_edits(made: Plan) -> None:
    for subgraph in made.subgraphs:
        if any(other.decision == subgraph.decision for other in subgraph.alternatives):
            terminal.note(
                "warning",
                f"{subgraph.id} was edited to {subgraph.decision}; its cost is still that of the "
                f"decision before: --model MODEL prices the plan again",
            )


def _some(ids: list[str], most: int = 8) -> str:
    return ", ".join(ids[:most]) + (", ..." if len(ids) > most else "")
