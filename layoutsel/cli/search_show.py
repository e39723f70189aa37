"""``layoutsel search show``: the networks that a search has found, and pictures of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layoutsel.cli.options import JsonFlag
from layoutsel.cli.search_options import front_table
from layoutsel.report import terminal


def show(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a search.", show_default=False)
    ],
    svg: Annotated[
        bool,
        typer.Option(
            "--svg",
            help="Draw front, placements over bandwidth, gates, hypervolume and all networks, as "
            "far as the search has data for them.",
        ),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Show the networks that a search has found, with their nodes, times and accuracies."""
    from layoutsel import documents
    from layoutsel.search.run_folder import RunFolder

    run = RunFolder.open(folder)
    networks = run.found()
    if json:
        terminal.show_json([documents.to_json(one) for one in networks])
    elif networks:
        terminal.show(front_table(networks))
    else:
        passes = sum(1 for _ in run.events("pass"))
        terminal.show_text(
            f"no network so far, after {passes} passes over the data: the same "
            f"'layoutsel search {run.question.kind}' goes on"
        )
    if svg:
        from layoutsel.search.pictures import draw

        for file in draw(run):
            terminal.note("written", str(file))
