"""``layoutsel exits plan``: who runs trunk and branches, and the latencies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.exits_network import SpecOption, network_of
from layoutsel.cli.options import (
    CacheOption,
    CostModelOption,
    CostOption,
    JsonFlag,
    LimitOption,
    LinksFlag,
    LogsOption,
    ModelArgument,
    PrecisionOption,
    ShapeOption,
    UnitsOption,
    parse_names,
    parse_seconds,
)
from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError
from tvm_passes.limits import parse_limits

if TYPE_CHECKING:
    from layoutsel.exits.network import ExitNetwork
    from layoutsel.exits.policy import Policy

PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="Policy of 'layoutsel exits calibrate'.",
        show_default="the specification's",
    ),
]


def plan(
    model: ModelArgument,
    policy: PolicyOption = None,
    seen: Annotated[
        Path | None,
        typer.Option(
            "--seen",
            metavar="FILE",
            help="Observations of 'layoutsel exits observe', whose patterns of sure exits are "
            "weighed.",
            show_default="no exit is ever sure",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Exit plan to write (JSON)."),
    ] = None,
    objective: Annotated[
        str,
        typer.Option("--objective", metavar="mean|p50|p95|p99|worst", help="Latency to minimise."),
    ] = "mean",
    answer: Annotated[
        str,
        typer.Option(
            "--answer",
            metavar="first|ordered",
            help="The sure result that is known first, or the one that is earliest in the order of "
            "exits, whatever the timing.",
        ),
    ] = "first",
    pin: Annotated[
        list[str] | None,
        typer.Option(
            "--pin",
            metavar="STAGE=WORKER",
            help="Worker to prescribe, such as trunk=cpu-2, trunk=opencl-0, exit1=cpu-1 or "
            "exit2=off. Repeatable.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            help="Correct predicted times by short runs; the network is compiled for them once "
            "per number of threads."
        ),
    ] = True,
    time_limit: Annotated[
        str,
        typer.Option(
            "--time-limit", metavar="TIME", help="Time limit of the search among arrangements."
        ),
    ] = "10s",
    cancel_within: Annotated[
        str,
        typer.Option(
            "--cancel-within",
            metavar="TIME",
            help="Time in which a device ends what is in its queue after an answer: the queue "
            "holds as few sub-graphs as that takes, and at least one.",
        ),
    ] = "1ms",
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            metavar="N",
            help="Number of cores that all workers together may use.",
            show_default="all cores",
        ),
    ] = None,
    spec: SpecOption = None,
    cost: CostOption = "learned",
    cost_model: CostModelOption = None,
    precision: PrecisionOption = "f32",
    units: UnitsOption = None,
    shape: ShapeOption = None,
    cache: CacheOption = None,
    logs: LogsOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
    json: JsonFlag = False,
) -> None:
    """Choose the exits that run, and the workers of the trunk and of each exit."""
    check_output(output)
    limit_s, limits = parse_seconds(time_limit), parse_limits(import_limit)
    from layoutsel.search.two_devices import parse_time_us

    within_us = parse_time_us("--cancel-within", cancel_within)
    options: dict[str, Any] = {
        "cost": cost,
        "cost_model": cost_model,
        "precision": precision,
        "cache": cache,
        "logs": logs,
        "limits": limits,
    }
    with activity() as shown:
        network = network_of(shown, model, spec, shape, allow_external_links, limits)
        from layoutsel.exits.matrix import ExitMatrix
        from layoutsel.exits.steps import plan as plan_network

        chosen = policy_of(network, policy)
        observed = None if seen is None else ExitMatrix.load(seen)
        shown.phase(f"planning {network.name}")
        made = plan_network(
            network,
            chosen,
            observed,
            units=parse_names(units),
            threads=threads,
            objective=objective,
            answer=answer,
            pins=pin or (),
            measure=measure,
            time_limit_s=limit_s,
            cancel_within_us=within_us,
            progress=shown,
            **options,
        )
    if output is not None:
        made.save(output)
    if json:
        from layoutsel import documents

        terminal.show_json(documents.to_json(made))
        return
    from layoutsel.exits.explain import summary

    terminal.show(*summary(made))
    if output is not None:
        terminal.show_text(f"exit plan written to {output}")


def policy_of(network: ExitNetwork, file: Path | None) -> Policy:
    """Read a policy; that of the network's specification if there is no file.

    Raises
    ------
    LayoutselError
        If neither has one.
    """
    from layoutsel.exits.policy import Policy

    if file is not None:
        return Policy.load(file)
    if network.spec.policy is None:
        raise LayoutselError(
            f"{network.name}: its specification has no policy; expected --policy FILE, as "
            "'layoutsel exits calibrate' writes it"
        )
    return network.spec.policy
