"""``layoutsel search offload``: a network whose first part runs here, and the rest on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.options import CostOption, parse_names, parse_seconds
from layoutsel.cli.search_options import (
    DataOption,
    FolderOption,
    MaxLatencyOption,
    RetrainEpochsOption,
    SeedOption,
    SpaceOption,
    TrainingLimitOption,
    TrainingThreadsOption,
    say,
    show_written,
)

if TYPE_CHECKING:
    from layoutsel.search.offload.settings import SearchReport


def offload(
    link: Annotated[
        list[str],
        typer.Option(
            "--link",
            metavar="[NAME=]RATE,TIME",
            help="Rate and round trip of the link, such as 20Mbit/s,5ms. Of several with names, "
            "such as wifi=20Mbit/s,5ms, each network uses one.",
            show_default=False,
        ),
    ],
    output: FolderOption,
    data: DataOption = "mnist1d",
    space: SpaceOption = None,
    device: Annotated[
        Path | None,
        typer.Option(
            "--device",
            metavar="FILE",
            help="Machine that holds the inputs (JSON).",
            show_default="this one, one thread",
        ),
    ] = None,
    server: Annotated[
        Path | None,
        typer.Option(
            "--server",
            metavar="FILE",
            help="Machine that the rest is sent to (JSON).",
            show_default="this one, one thread",
        ),
    ] = None,
    device_load: Annotated[
        float,
        typer.Option(
            "--device-load",
            min=0.0,
            max=0.95,
            metavar="SHARE",
            help="Share of the device's processors that other work occupies; 0.9 makes it ten "
            "times slower.",
        ),
    ] = 0.0,
    max_latency: MaxLatencyOption = None,
    max_bytes: Annotated[
        str | None,
        typer.Option(
            "--max-bytes",
            metavar="SIZE",
            help="Hard limit on the bytes that a request sends to the server, such as 800B.",
            show_default="none",
        ),
    ] = None,
    precisions: Annotated[
        str,
        typer.Option(
            "--precisions",
            metavar="NAMES",
            help="Precisions of sent tensors to choose from: float32, bfloat16, uint8.",
        ),
    ] = "float32",
    epochs: Annotated[
        int,
        typer.Option(
            "--epochs", min=1, metavar="N", help="Passes with the first weight of the time."
        ),
    ] = 12,
    sweep_epochs: Annotated[
        int,
        typer.Option("--sweep-epochs", min=1, metavar="N", help="Passes with each further weight."),
    ] = 6,
    drawn: Annotated[
        int,
        typer.Option(
            "--drawn",
            min=0,
            metavar="N",
            help="Networks that are drawn after each weight of the time, besides the most probable "
            "one; they compete in short trainings.",
        ),
    ] = 3,
    retrain_epochs: RetrainEpochsOption = 60,
    seed: SeedOption = 0,
    threads: TrainingThreadsOption = 1,
    time_limit: TrainingLimitOption = "60m",
    cost: CostOption = "learned",
) -> None:
    """Search a network, the device of each operation and the channels that are sent, together."""
    from layoutsel.search.default_spaces import check_data
    from layoutsel.search.offload.settings import OffloadLimits, OffloadRecipe
    from layoutsel.search.offload.spaces import offload_space
    from layoutsel.search.offload_run import offload_question, search_offload
    from layoutsel.search.run_folder import RunFolder
    from layoutsel.search.space import Space
    from layoutsel.search.two_devices import parse_bytes, parse_time_us, two_devices

    topology, statistics = two_devices(link, device=device, server=server, loads=(device_load, 0.0))
    asked = offload_space(data) if space is None else Space.load(space)
    check_data(asked)
    limits = OffloadLimits(
        us=None if max_latency is None else parse_time_us("--max-latency", max_latency),
        bytes=None if max_bytes is None else parse_bytes("--max-bytes", max_bytes),
    )
    recipe = OffloadRecipe(
        search_epochs=epochs,
        sweep_epochs=sweep_epochs,
        drawn_networks=drawn,
        retrain_epochs=retrain_epochs,
    )
    names = parse_names(precisions) or ()
    question = offload_question(
        asked,
        topology,
        statistics,
        limits=limits,
        recipe=recipe,
        precisions=names,
        seed=seed,
        cost=cost,
    )
    limit_s = parse_seconds(time_limit)
    run = RunFolder.begin(output, question, Path.cwd())
    with activity() as shown:

        def show(report: SearchReport) -> None:
            shown.phase(
                f"{report.phase}: pass {report.epoch} of {report.epochs}, loss {report.loss:.3f}"
            )

        found = search_offload(
            run,
            say,
            limits=limits,
            recipe=recipe,
            precisions=names,
            on_report=show,
            threads=threads,
            limit_s=limit_s,
        )
    show_written(found, output)
