"""``layoutsel exits demo``: a network with exits from its training to measured latencies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.exits_bench import comparison_table
from layoutsel.report import terminal

if TYPE_CHECKING:
    from layoutsel.exits.training.settings import EpochReport


def demo(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for networks and pictures."),
    ] = Path("exits-demo"),
    data: Annotated[
        str, typer.Option("--data", metavar="mnist5k|mnist1d", help="Data set.")
    ] = "mnist5k",
    size: Annotated[
        str, typer.Option("--size", metavar="tiny|demo|large", help="Size of the network.")
    ] = "demo",
    static: Annotated[
        bool,
        typer.Option(
            "--static",
            help="Train and time networks that end at each exit alone as well, which takes about "
            "three times as long.",
        ),
    ] = False,
) -> None:
    """Train, calibrate, plan and compile a network with exits; time it with and without a load."""
    from layoutsel.cli.exits_policy import promise
    from layoutsel.exits.demonstration import demonstrate
    from layoutsel.exits.explain import race_line, summary

    with activity() as shown:

        def show(report: EpochReport) -> None:
            shown.phase(f"training {report.network}, pass {report.epoch} of {report.epochs}")

        found = demonstrate(
            output,
            terminal.show_text,
            data=data,
            size=size,
            static=static,
            progress=show,
        )
    terminal.show("", *summary(found.plan), "")
    if found.plan.race is not None:
        terminal.show(race_line(found.plan, found.plan.race))
    terminal.show_text(promise(found.policy))
    for title, compared in (
        ("without a load", found.idle),
        ("another process on the first core", found.loaded),
    ):
        terminal.show("", f"measured on test samples, {title}:", comparison_table(compared))
    terminal.show_text("")
    for file in found.files:
        terminal.show_text(f"written {file}")
