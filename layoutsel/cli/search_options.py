"""Options that the commands of searches share, and tables of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.report import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from layoutsel.search.found import FoundNetwork

FolderOption = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder of the search; the same command on it goes on where an earlier one ended.",
        show_default=False,
    ),
]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="mnist1d|mnist5k",
        help="Data set: generated signals of ten classes, or 5,000 images of digits.",
    ),
]
SpaceOption = Annotated[
    Path | None,
    typer.Option(
        "--space",
        metavar="FILE",
        help="Search space (JSON).",
        show_default="one for the data set",
    ),
]
MaxLatencyOption = Annotated[
    str | None,
    typer.Option(
        "--max-latency",
        metavar="TIME",
        help="Hard limit on the predicted time of a request, such as 8ms.",
        show_default="none",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=2**32 - 1, help="Seed of the data's parts, the weights and draws."
    ),
]
RetrainEpochsOption = Annotated[
    int,
    typer.Option("--retrain-epochs", min=1, metavar="N", help="Passes that train a network."),
]
TrainingThreadsOption = Annotated[
    int, typer.Option("--threads", min=1, metavar="N", help="Number of threads of the training.")
]
TrainingLimitOption = Annotated[
    str,
    typer.Option(
        "--time-limit", metavar="TIME", help="Time limit of the training, such as 90s or 30m."
    ),
]


def say(text: str) -> None:
    """Show a step of a search on standard error."""
    terminal.note("search", text)


def show_written(networks: Sequence[FoundNetwork], folder: Path) -> None:
    """Show the networks that a search has written into its folder."""
    terminal.show(front_table(networks))
    terminal.show_text(f"networks written to {folder}; deploy one with 'layoutsel search deploy'")


def front_table(networks: Sequence[FoundNetwork]) -> Table:
    """Table of found networks, sorted by their time.

    Numbers of networks that another one dominates on validation data are in parentheses.
    """
    from layoutsel.report.plan_tables import milliseconds, new_table
    from layoutsel.search.found import TEST, TUNE

    columns = ("number", "validation", "test", "predicted", "measured", "sent", "runs of parts")
    table = new_table(*columns, right=columns[:-1])
    best = 0.0
    for one in sorted(networks, key=lambda one: one.predicted_us):
        is_on_front = one.accuracies.get(TUNE, 1.0) > best
        best = max(best, one.accuracies.get(TUNE, 0.0))
        measured = milliseconds(one.measured[-1].median_us) if one.measured else "-"
        table.add_row(
            str(one.number) if is_on_front else f"({one.number})",
            _percent(one, TUNE),
            _percent(one, TEST),
            milliseconds(one.predicted_us),
            measured,
            f"{one.sent_bytes} B" + (f" over {one.link}" if one.link else ""),
            _runs(one),
        )
    return table


def _percent(found: FoundNetwork, name: str) -> str:
    return f"{100 * found.accuracies[name]:.1f} %" if name in found.accuracies else "-"


def _runs(found: FoundNetwork) -> str:
    """Nodes with their parts in order, such as ``edge: stem to layer2.0-1, server: …``."""
    runs: list[tuple[str, list[str]]] = []
    for part, node in found.placement.items():
        if not runs or runs[-1][0] != node:
            runs.append((node, []))
        runs[-1][1].append(part)
    return ", ".join(
        f"{node}: {parts[0]}" + (f" to {parts[-1]}" if len(parts) > 1 else "")
        for node, parts in runs
    )
