"""``layoutsel cluster demo``: two nodes of Ray on this machine, and the loss of one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from layoutsel.cli.demo import MODEL
from layoutsel.report import terminal


def demo(
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="Another model.")] = MODEL,
) -> None:
    """Divide a model over two nodes of Ray on this machine, run it, and kill a node meanwhile."""
    from layoutsel.cluster.demonstration import demonstrate

    with tempfile.TemporaryDirectory(prefix="layoutsel-cluster-") as folder:
        found = demonstrate(model, Path(folder), terminal.show_text)
    terminal.show_text(found.distributions.matrix())
    terminal.show_text(
        f"with a node killed: {found.answers} right answers, {found.wrong} wrong, none lost; "
        f"{found.replays} requests were computed again, and the longest pause took "
        f"{found.longest_ms:.0f} ms"
    )
