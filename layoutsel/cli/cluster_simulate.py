"""``layoutsel cluster simulate``: requests to a distribution by discrete events, lost nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.options import DistributionsArgument, JsonFlag, parse_seconds
from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from layoutsel.cluster.simulate import Incident


def simulate(
    distributions: DistributionsArgument,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="NAME", help="Target to simulate.", show_default="the first"
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="HZ",
            help="Mean rate of random arrivals, requests per second.",
            show_default="a request arrives when one ends",
        ),
    ] = None,
    requests: Annotated[int, typer.Option("--requests", help="Number of requests.")] = 10_000,
    in_flight: Annotated[
        int | None,
        typer.Option(
            "--in-flight",
            help="Most requests in progress; others wait.",
            show_default="1, or any number with --rate",
        ),
    ] = None,
    kill: Annotated[
        list[str] | None,
        typer.Option(
            "--kill",
            metavar="NODE@TIME",
            help="Lose a node, such as srv@30s. Repeatable.",
            show_default=False,
        ),
    ] = None,
    join: Annotated[
        list[str] | None,
        typer.Option(
            "--join",
            metavar="NODE@TIME",
            help="Let a lost node return, such as srv@60s. Repeatable.",
            show_default=False,
        ),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            "--statistics",
            metavar="FILE",
            help="State of nodes and links to simulate (JSON).",
            show_default="the planned one",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the arrivals.")] = 0,
    svg: Annotated[
        Path | None,
        typer.Option(
            "--svg",
            metavar="FILE",
            help="Gantt chart to write: the first requests, or those around the first loss.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Copy of the document with simulated metrics."
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Simulate requests to a distribution: throughput, latency, use of nodes and links."""
    for file in (svg, output):
        check_output(file)
    from layoutsel.cluster.distribution import Distributions
    from layoutsel.cluster.gantt import write_gantt
    from layoutsel.cluster.simulate import Load
    from layoutsel.cluster.simulate import simulate as simulated
    from layoutsel.cluster.simulated import (
        shown_window,
        simulation_table,
        utilisation_table,
        with_simulated,
    )
    from layoutsel.cluster.statistics import Statistics

    made = Distributions.load(distributions)
    chosen = made.distributions[0] if target is None else made[target]
    state = None if statistics is None else Statistics.load(statistics, made.topology)
    losses = list(parse_incidents("--kill", kill))
    incidents = [*losses, *parse_incidents("--join", join)]
    if rate is None and in_flight is None:
        in_flight = 1
    load = Load(requests=requests, rate_hz=rate, in_flight=in_flight, seed=seed)
    window_us = shown_window(chosen, incidents) if svg is not None else (0.0, 0.0)
    found = simulated(
        made, chosen, load, statistics=state, incidents=incidents, window_us=window_us
    )
    if svg is not None:
        title = f"{made.model_name}, {chosen.target.label}"
        write_gantt(found.bars, svg, title=title, losses_us={one.node: one.at_us for one in losses})
    if output is not None:
        with_simulated(made, chosen, load, found).save(output)
    if json:
        terminal.show_json(found.summary())
    else:
        terminal.show(simulation_table(found), utilisation_table(found))


def parse_incidents(option: str, texts: Sequence[str] | None) -> Iterator[Incident]:
    """Parse ``srv@30s``.

    Raises
    ------
    LayoutselError
        If a text has another form.
    """
    from layoutsel.cluster.simulate import Incident

    for text in texts or ():
        node, _, time = text.rpartition("@")
        if not node or not time:
            raise LayoutselError(f"{option} {text}: expected a node and a time, such as srv@30s")
        yield Incident(node=node, at_us=parse_seconds(time) * 1e6, joins=option == "--join")
