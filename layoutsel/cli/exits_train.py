"""``layoutsel exits train``: a multi-exit network from data, trained in a child process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.options import JsonFlag, parse_seconds
from layoutsel.report import terminal

if TYPE_CHECKING:
    from layoutsel.exits.training.settings import EpochReport


def train(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="mnist5k|mnist1d",
            help="Data set: 5,000 images of digits, or generated signals of ten classes.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the network (net.onnx), data to observe, certify and test it, and the "
            "report.",
            show_default=False,
        ),
    ],
    size: Annotated[
        str, typer.Option("--size", metavar="tiny|demo|large", help="Size of the network.")
    ] = "demo",
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, help="Seed of the data's parts, the weights and the order of samples."
        ),
    ] = 0,
    hidden: Annotated[
        int | None,
        typer.Option(
            "--hidden",
            min=1,
            metavar="N",
            help="Begin each early exit with a convolution of N channels, for costlier branches.",
            show_default="pooling and a linear layer alone",
        ),
    ] = None,
    static: Annotated[
        bool,
        typer.Option(
            "--static",
            help="Train networks that end at each of the exits alone as well, to compare with.",
        ),
    ] = False,
    threads: Annotated[
        int, typer.Option("--threads", min=1, metavar="N", help="Number of threads.")
    ] = 1,
    time_limit: Annotated[
        str,
        typer.Option("--time-limit", metavar="TIME", help="Time limit, such as 90s or 30m."),
    ] = "30m",
    json: JsonFlag = False,
) -> None:
    """Train a network with several exits: the backbone first, then backbone and exits together."""
    from layoutsel import documents
    from layoutsel.exits.training.settings import TrainingTask
    from layoutsel.exits.training.train import train as train_networks
    from layoutsel.report.plan_tables import new_table

    task = TrainingTask(
        data=data, size=size, seed=seed, threads=threads, hidden=hidden, static=static
    )
    limit_s = parse_seconds(time_limit)
    with activity() as shown:
        shown.phase("starting PyTorch")

        def show(report: EpochReport) -> None:
            shown.phase(
                f"training {report.network}: {report.phase}, pass {report.epoch} of "
                f"{report.epochs}, loss {report.loss:.3f}"
            )

        made = train_networks(task, output, limit_s=limit_s, progress=show)
    if json:
        terminal.show_json(documents.to_json(made))
        return
    table = new_table("network", "exits", "right on test data", "time", right=("exits", "time"))
    for network in made.networks:
        shares = ", ".join(f"{100 * share:.1f} %" for share in network.test_accuracies)
        count = str(len(network.test_accuracies))
        table.add_row(network.file, count, shares, f"{network.seconds:.0f} s")
    terminal.show(table)
    terminal.show_text(f"networks and data written to {output}")
