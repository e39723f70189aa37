"""``layoutsel exits compile`` and ``run``: artifacts of exit plans, and their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.exits_network import SpecOption, network_of
from layoutsel.cli.options import (
    JsonFlag,
    LimitOption,
    LinksFlag,
    LogsOption,
    ModelArgument,
    ShapeOption,
    parse_seconds,
)
from layoutsel.core.files import check_output
from layoutsel.device.artifact_header import LEAST_BYTES, check_name
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError
from tvm_passes.limits import parse_limits

if TYPE_CHECKING:
    from layoutsel.exits.comparing import Answered
    from layoutsel.exits.load_aware import LoadAwareModel
    from layoutsel.runtime.compiled import CompiledModel

SCHEMA_VERSION = 1
"""Version of the JSON output of ``run``."""
_SHOWN = 10
"""Number of answers that are printed one by one."""

ArtifactArgument = Annotated[
    Path,
    typer.Argument(
        metavar="NET.so", help="File that 'layoutsel exits compile' wrote.", show_default=False
    ),
]
SamplesArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATA.npz",
        help="An array for each input, samples along the first axis, and optionally 'labels', the "
        "true classes.",
        show_default=False,
    ),
]
FirstOption = Annotated[
    int | None,
    typer.Option(
        "--first",
        min=1,
        metavar="N",
        help="Number of samples, from the first one.",
        show_default="all",
    ),
]


def compile_network(
    model: ModelArgument,
    plan: Annotated[
        Path,
        typer.Argument(
            metavar="EXITS.json", help="File of 'layoutsel exits plan'.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="NET.so", help="Artifact to write.", show_default=False
        ),
    ],
    race: Annotated[
        str,
        typer.Option(
            "--race",
            metavar="TIME",
            help="Time limit of the race against the trunk alone and all exits in sequence; 0 to "
            "build as planned.",
        ),
    ] = "5s",
    for_loads: Annotated[
        bool,
        typer.Option(
            "--for-loads",
            help="Add a table of arrangements by the load of the machine, each of them measured; "
            "each request has the one for the load at its arrival.",
        ),
    ] = False,
    seen: Annotated[
        Path | None,
        typer.Option(
            "--seen",
            metavar="FILE",
            help="Observations of the calibration, from which the audit of --for-loads learns how "
            "often exits may differ from the final one.",
            show_default="as often as the certificate allows losses",
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            "--batch",
            min=1,
            metavar="N",
            help="Largest number of requests that a server answers at once. Code for 2, 4, … is "
            "added as far as it pays.",
        ),
    ] = 1,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the results with ONNX Runtime.")
    ] = True,
    spec: SpecOption = None,
    shape: ShapeOption = None,
    logs: LogsOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
    json: JsonFlag = False,
) -> None:
    """Compile a network as planned, race it against simpler arrangements, and keep the fastest."""
    check_output(output, LEAST_BYTES)
    check_name(output)
    race_s, limits = parse_seconds(race), parse_limits(import_limit)
    if seen is not None and not for_loads:
        raise LayoutselError("--seen is for the audit of --for-loads: expected both or none")
    from layoutsel.exits.exit_plan import ExitPlan

    planned = ExitPlan.load(plan)
    options: dict[str, Any] = {
        "race_s": race_s,
        "batch": batch,
        "verify": verify,
        "logs": logs,
        "limits": limits,
    }
    with activity() as shown:
        network = network_of(shown, model, spec, shape, allow_external_links, limits)
        from layoutsel.exits.matrix import ExitMatrix
        from layoutsel.exits.steps import compile as compile_exits
        from layoutsel.exits.steps import compile_for_loads

        observed = None if seen is None else ExitMatrix.load(seen)
        if for_loads:
            shown.phase("building the plan, and measuring the arrangements by load")
            compiled = compile_for_loads(network, planned, observed, **options)
        else:
            shown.phase("building the plan and its rivals")
            with compile_exits(network, planned, **options) as made:
                compiled = made.compiled
        shown.phase(f"writing {output}")
        compiled.save(output)
    _show_compiled(compiled, output, json=json)


def _show_compiled(compiled: CompiledModel, output: Path, *, json: bool) -> None:
    """Print what was measured and kept, and the checks."""
    from layoutsel.cli.exits_explain import show_all
    from layoutsel.exits.batch_times import times_in
    from layoutsel.exits.building import plan_in
    from layoutsel.exits.explain import batch_line, race_line, summary
    from layoutsel.exits.explain_loads import loads_explanation
    from layoutsel.exits.load_aware_building import table_in

    kept = plan_in(compiled.header, str(output))
    table = table_in(compiled.header, kept, str(output))
    times = times_in(compiled.header, str(output))
    if json:
        show_all(kept, table, times, json=True)
        return
    terminal.show(*summary(kept), "")
    if kept.race is not None:
        terminal.show(race_line(kept, kept.race))
    if table is not None:
        terminal.show(*loads_explanation(table, kept.exits))
    if times is not None:
        terminal.show(batch_line(times))
    checks = compiled.checks
    if checks:
        worst = max(checks, key=lambda check: float(check["rel_l2_err"]))
        terminal.show_text(
            f"{len(checks)} results verified against {worst['reference']}: relative L2 error at "
            f"most {worst['rel_l2_err']:.1e} ({worst['output']!r})"
        )
    terminal.show_text(f"written to {output} ({output.stat().st_size / 1e6:,.1f} MB)")


def run(
    artifact: ArtifactArgument,
    data: SamplesArgument,
    first: FirstOption = None,
    json: JsonFlag = False,
) -> None:
    """Answer samples: the class, the exit that answered, and the time."""
    from layoutsel.exits.comparing import answered
    from layoutsel.exits.load_aware import LoadAwareModel
    from layoutsel.exits.load_aware_building import open_artifact
    from layoutsel.exits.samples import read_samples

    with open_artifact(artifact) as model:
        (_, classes) = model.compiled.outputs[0].shape
        samples = read_samples(data, model.compiled.inputs, classes).first(first)
        found = answered(model, samples)
    adapted = _adaptation(model) if isinstance(model, LoadAwareModel) else None
    if json:
        terminal.show_json({**_described(found), "adapted": adapted})
        return
    _show_answers(found, model.exits)
    if adapted is not None:
        terminal.show_text(
            "arrangement at the end, for {busy_cores:g} busy cores: {workers}; it changed "
            "{switches} times; {audited} requests were audited".format_map(adapted)
        )


def _adaptation(model: LoadAwareModel) -> dict[str, Any]:
    """Collect how a network has adapted to the load, as JSON data."""
    from layoutsel.exits.explain import workers_text

    choice = model.controller.choice
    return {
        "busy_cores": model.table.grid.load(choice.cell).busy_cores,
        "workers": workers_text(model.table.arrangements[choice.chosen]),
        "switches": model.controller.switches,
        "audited": model.audit.statistics().requests,
    }


def _described(found: Answered) -> dict[str, Any]:
    truths = [None] * len(found.answers) if found.labels is None else found.labels.tolist()
    return {
        "schema_version": SCHEMA_VERSION,
        **found.summary(),
        "each": [
            {"label": one.label, "exit": one.exit, "us": one.us, "score": one.score, "truth": truth}
            for one, truth in zip(found.answers, truths, strict=True)
        ],
    }


def _show_answers(found: Answered, exits: Sequence[str]) -> None:
    """Print the first answers, and figures by exit."""
    from layoutsel.report.plan_tables import new_table

    each = new_table("sample", "class", "true", "exit", "score", "µs", right=("score", "µs"))
    truths = [""] * _SHOWN if found.labels is None else list(map(str, found.labels[:_SHOWN]))
    for number, (one, truth) in enumerate(zip(found.answers, truths, strict=False)):
        shown = (str(one.label), truth, one.exit, f"{one.score:.4f}", f"{one.us:,.0f}")
        each.add_row(str(number), *shown)
    columns = ("answers", "%", "right %", "p50 µs", "p95 µs")
    by_exit = new_table("exit", *columns, right=columns)
    for name in exits:
        by_exit.add_row(name, *_cells(found.of_exit(name), len(found.answers)))
    by_exit.add_row("all", *_cells(found, len(found.answers)))
    terminal.show(each, "", by_exit)


def _cells(found: Answered, total: int) -> Iterator[str]:
    count = len(found.answers)
    yield f"{count:,}"
    yield f"{100 * count / total:.1f}"
    if count:
        accuracy = found.accuracy
        yield "" if accuracy is None else f"{100 * accuracy:.2f}"
        figures = found.latencies()
        yield f"{figures['p50_us']:,.0f}"
        yield f"{figures['p95_us']:,.0f}"


COMMANDS: dict[str, Callable[..., None]] = {"compile": compile_network, "run": run}
"""Functions of the commands on artifacts, by name."""
