"""``layoutsel search demo``: both searches on signals, with networks on two nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.search_deploy import measured_line
from layoutsel.cli.search_options import front_table
from layoutsel.report import terminal


def demo(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for both searches."),
    ] = Path("search-demo"),
) -> None:
    """Search networks for two nodes in both ways, deploy one of each, and print the fronts."""
    from layoutsel.search.demonstration import demonstrate

    with activity() as shown:
        made = demonstrate(output, terminal.show_text, phase=shown.phase)
    for one in made:
        terminal.show_text(f"\n{one.kind} search:")
        terminal.show(front_table(one.networks))
        deployed = one.deployed
        terminal.show_text(f"network {deployed.number}: {measured_line(deployed.measured[-1])}")
        for file in one.pictures:
            terminal.note("written", str(file))
