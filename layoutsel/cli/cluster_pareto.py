"""``layoutsel cluster pareto``: distributions between the best ones for two targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.options import DistributionsArgument, parse_seconds
from layoutsel.core.files import check_output
from layoutsel.report import terminal


def pareto(
    distributions: DistributionsArgument,
    target: Annotated[
        list[str],
        typer.Option(
            "--target",
            metavar="NAME",
            help="latency, throughput, energy or memory; given twice.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Distributions to write (JSON)."),
    ] = None,
    points: Annotated[
        int, typer.Option("--points", min=2, metavar="N", help="Most distributions.")
    ] = 8,
    time_limit: Annotated[
        str,
        typer.Option("--time-limit", metavar="TIME", help="Time limit of each distribution."),
    ] = "3s",
) -> None:
    """Find the distributions that no other one beats in two targets (Pareto front)."""
    check_output(output)
    limit_s = parse_seconds(time_limit)
    with activity() as shown:
        shown.phase(f"distributing for {' and '.join(target)}")
        from layoutsel.cluster.distribution import Distributions
        from layoutsel.cluster.pareto import pareto as front

        known = Distributions.load(distributions)
        made = front(known, target, points=points, time_limit_s=limit_s)
    if output is not None:
        made.save(output)
    from layoutsel.cluster.explain import matrix_table, placement_table

    terminal.show(matrix_table(made), placement_table(made))
    if output is not None:
        terminal.show_text(f"distributions written to {output}")
