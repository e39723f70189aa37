"""``layoutsel search joint``: a network and its division over the nodes of a topology."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.options import CostOption, parse_seconds
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
    from layoutsel.search.joint.tasks import Pass


def joint(
    topology: Annotated[
        Path,
        typer.Option(
            "--topology", metavar="FILE", help="Nodes and links (JSON).", show_default=False
        ),
    ],
    output: FolderOption,
    data: DataOption = "mnist1d",
    space: SpaceOption = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            "--statistics",
            metavar="FILE",
            help="State of nodes and links (JSON).",
            show_default="idle",
        ),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            metavar="inference|training-step",
            help="Work of a request: an answer, or a step of training with gradients over links.",
        ),
    ] = "inference",
    max_latency: MaxLatencyOption = None,
    queries: Annotated[
        int,
        typer.Option(
            "--queries", min=8, metavar="N", help="Number of networks whose accuracy is asked."
        ),
    ] = 60,
    networks: Annotated[
        int,
        typer.Option("--networks", min=1, metavar="N", help="Number of networks to train."),
    ] = 4,
    epochs: Annotated[
        int,
        typer.Option("--epochs", min=1, metavar="N", help="Passes that train common weights."),
    ] = 30,
    retrain_epochs: RetrainEpochsOption = 15,
    seed: SeedOption = 0,
    threads: TrainingThreadsOption = 1,
    time_limit: TrainingLimitOption = "60m",
    cost: CostOption = "learned",
) -> None:
    """Search networks and their placements together: accuracy against the time of a request."""
    from layoutsel.search.joint.question import joint_question
    from layoutsel.search.joint.search import search_joint
    from layoutsel.search.run_folder import RunFolder
    from layoutsel.search.two_devices import parse_time_us

    question = joint_question(
        topology,
        data=data,
        space=space,
        statistics=statistics,
        objective=objective,
        max_us=None if max_latency is None else parse_time_us("--max-latency", max_latency),
        queries=queries,
        networks=networks,
        epochs=epochs,
        retrain_epochs=retrain_epochs,
        seed=seed,
        cost=cost,
    )
    limit_s = parse_seconds(time_limit)
    run = RunFolder.begin(output, question, topology.parent)
    with activity() as shown:

        def show(report: Pass) -> None:
            shown.phase(
                f"training {report.network}: pass {report.epoch} of {report.epochs}, "
                f"loss {report.loss:.3f}"
            )

        found = search_joint(run, say, progress=show, threads=threads, limit_s=limit_s)
    show_written(found, output)
