"""``layoutsel cluster``: a network over several nodes, planned and explained."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layoutsel.cli import (
    cluster_demo,
    cluster_nodes,
    cluster_pareto,
    cluster_run,
    cluster_simulate,
)
from layoutsel.cli.activity import activity
from layoutsel.cli.guard import guarded
from layoutsel.cli.options import (
    CacheOption,
    CostModelOption,
    CostOption,
    DistributionsArgument,
    JsonFlag,
    LimitOption,
    LinksFlag,
    LogsOption,
    ModelArgument,
    PrecisionOption,
    ShapeOption,
    ThreadsOption,
    UnitsOption,
    parse_names,
    parse_seconds,
    parse_shapes,
)
from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError
from tvm_passes.limits import parse_limits

if TYPE_CHECKING:
    from layoutsel.cluster.segments import Target

app = typer.Typer(
    name="cluster",
    no_args_is_help=True,
    help="Divide a network over several machines.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_UNITS: Mapping[str, Mapping[str, float]] = {
    "latency": {"us": 1.0, "ms": 1e3, "s": 1e6},
    "throughput": {"Hz": 1.0, "/s": 1.0},
    "energy": {"J": 1.0, "mJ": 1e-3},
    "memory": {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9},
}
"""Factors of the units in which limits may be given, by metric."""
_AMOUNT = re.compile(r"([0-9.eE+-]+)\s*([A-Za-z/]+)")
"""Pattern of a number with its unit."""


def plan(
    model: ModelArgument,
    topology: Annotated[
        Path,
        typer.Option(
            "--topology", metavar="FILE", help="Nodes and links (JSON).", show_default=False
        ),
    ],
    statistics: Annotated[
        Path | None,
        typer.Option(
            "--statistics",
            metavar="FILE",
            help="Present state of nodes and links (JSON).",
            show_default="idle",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="NAME",
            help="latency, throughput, energy or memory; one distribution is made for each. "
            "Repeatable.",
            show_default="latency",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME=VALUE",
            help="Limit on the other targets, such as latency=50ms, throughput=20Hz, energy=2J or "
            "memory=500MB. Repeatable.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Distributions to write (JSON)."),
    ] = None,
    spares: Annotated[
        bool, typer.Option(help="Plan without each single node as well, to recover at once.")
    ] = True,
    time_limit: Annotated[
        str | None,
        typer.Option(
            "--time-limit",
            metavar="TIME",
            help="Time limit of each target, such as 10s or 2m.",
            show_default="3s",
        ),
    ] = None,
    cost: CostOption = "learned",
    cost_model: CostModelOption = None,
    precision: PrecisionOption = "f32",
    units: UnitsOption = None,
    threads: ThreadsOption = None,
    shape: ShapeOption = None,
    cache: CacheOption = None,
    logs: LogsOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
) -> None:
    """Divide a network over the nodes of a topology, once for each target."""
    check_output(output)
    targets = parse_targets(target, limit)
    limits: dict[str, Any] = {}
    if time_limit is not None:
        limits["time_limit_s"] = parse_seconds(time_limit)
    with activity() as shown:
        shown.phase(f"distributing {model}")
        from layoutsel.cluster.distributing import distribute

        made = distribute(
            model,
            topology,
            statistics,
            targets,
            spares=spares,
            **limits,
            cost=cost,
            cost_model=cost_model,
            precision=precision,
            units=parse_names(units),
            threads=threads,
            shapes=parse_shapes(shape),
            cache=cache,
            logs=logs,
            allow_external_links=allow_external_links,
            limits=parse_limits(import_limit),
            progress=shown,
        )
    if output is not None:
        made.save(output)
    from layoutsel.cluster.explain import matrix_table, placement_table

    terminal.show(matrix_table(made), placement_table(made))
    if output is not None:
        terminal.show_text(f"distributions written to {output}")


def explain(
    distributions: DistributionsArgument,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="NAME", help="Target to explain.", show_default="all"),
    ] = None,
    dot: Annotated[
        Path | None,
        typer.Option(
            "--dot",
            metavar="FILE",
            help="Graph of the first target's segments to write, coloured by node; also as SVG if "
            "graphviz is there.",
            show_default=False,
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Explain distributions: who runs what, what another cut would cost, bounds, lost nodes."""
    check_output(dot)
    from layoutsel.cluster.distribution import Distributions
    from layoutsel.cluster.explain import dot_lines, explanation

    made = Distributions.load(distributions)
    chosen = made.distributions if target is None else (made[target],)
    if json:
        from layoutsel import documents

        terminal.show_json(documents.to_json(made))
    else:
        terminal.show(*explanation(made, chosen))
    if dot is not None:
        from layoutsel.report.dot import write_graph

        write_graph(dot_lines(chosen[0], made.model_name), dot)


def parse_targets(names: Sequence[str] | None, limits: Sequence[str] | None) -> list[Target]:
    """Parse targets and their limits; a limit does not concern its own target.

    Raises
    ------
    LayoutselError
        If a target or limit is unknown or repeated, or has no unit of its metric.
    """
    from layoutsel.cluster.segments import Target

    wanted = list(names or ["latency"])
    for name in wanted:
        if name not in _UNITS:
            raise LayoutselError(f"--target {name}: expected one of {', '.join(_UNITS)}")
        if wanted.count(name) > 1:
            raise LayoutselError(f"--target {name}: got it twice; expected different targets")
    values: dict[str, float] = {}
    for text in limits or ():
        name, value = parse_limit(text)
        if name in values:
            raise LayoutselError(f"--limit {text}: got a second limit of {name}; expected one")
        values[name] = value
    return [
        Target(name=name, limits={k: v for k, v in values.items() if k != name}) for name in wanted
    ]


def parse_limit(text: str) -> tuple[str, float]:
    """Parse ``latency=50ms`` as the name and the value in the metric's unit.

    Raises
    ------
    LayoutselError
        If the text has another form.
    """
    name, _, amount = text.partition("=")
    found = _AMOUNT.fullmatch(amount.strip())
    if name in _UNITS and found is not None and found[2] in _UNITS[name]:
        try:
            value = float(found[1]) * _UNITS[name][found[2]]
        except ValueError:
            value = 0.0
        if value > 0 and value != float("inf"):
            return name, value
    examples = ", ".join(f"{one}=1{next(iter(units))}" for one, units in _UNITS.items())
    units = f" in {', '.join(_UNITS[name])}" if name in _UNITS else ""
    raise LayoutselError(
        f"--limit {text}: expected a metric and a number above 0{units}, such as {examples}"
    )


COMMANDS: dict[str, Callable[..., None]] = {
    "plan": plan,
    "explain": explain,
    "pareto": cluster_pareto.pareto,
    "simulate": cluster_simulate.simulate,
    **cluster_nodes.COMMANDS,
    **cluster_run.COMMANDS,
    "demo": cluster_demo.demo,
}
"""Functions of the commands, by name."""

for _name, _command in COMMANDS.items():
    app.command(_name)(guarded(_command))
