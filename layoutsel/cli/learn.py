"""``layoutsel train``, ``evaluate`` and ``calibrate``: commands for the learned cost model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.limited import TIME_LIMIT, CommandLimitOption, limited
from layoutsel.cli.options import CostModelOption, JsonFlag, ThreadsOption, UnitsOption, parse_names
from layoutsel.core.files import make_folder
from layoutsel.report import terminal

if TYPE_CHECKING:
    from layoutsel.cost.samples import Dataset

DataArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[LOG]...",
        help="Data sets (.jsonl.xz) and measurement stores (.sqlite).",
        show_default="the repository's data set",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the training.")]


def train(
    data: DataArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the model.",
            show_default="the package's own folder",
        ),
    ] = None,
    seed: SeedOption = 0,
    time_limit: CommandLimitOption = TIME_LIMIT,
) -> None:
    """Train the cost model from logs. Equal logs and seed give equal bytes."""
    from layoutsel.cost.slowdown import SHIPPED
    from layoutsel.cost.slowdown_training import train_slowdown
    from layoutsel.cost.training import TrainingOptions
    from layoutsel.cost.training import train as train_model

    with limited(time_limit), activity() as shown:
        dataset = _read(data)
        folder = _folder(output)
        model = train_model(
            dataset,
            TrainingOptions(seed=seed),
            lambda name, samples: shown.phase(f"training {name} on {samples} samples"),
        )
        slowdown = train_slowdown(dataset.loaded) if dataset.loaded else None
    model.save(folder)
    if slowdown is not None:
        slowdown.save(folder / SHIPPED.name)
    from layoutsel.report.plan_tables import new_table

    table = new_table(
        *("part", "samples", "workloads", "machines", "within 10 %", "mean error"),
        right=("samples", "workloads", "machines", "within 10 %", "mean error"),
    )
    for name, part in model.card.parts.items():
        shares = f"{100 * part.within_10:.0f} %", f"{100 * part.mape:.1f} %"
        counts = part.samples, part.workloads, len(part.machines)
        table.add_row(name, *map(str, counts), *shares)
    terminal.show(table)
    terminal.show_text(f"cost model {model.version} written to {folder}")
    if slowdown is not None:
        terminal.show_text(
            f"slowdowns by load: {slowdown.samples} samples, mean error "
            f"{100 * slowdown.mape:.1f} % on loads that were left out"
        )


def _folder(output: Path | None) -> Path:
    """Make the folder of the model; the package's own one if `output` is None."""
    from layoutsel.cost.learned import PRETRAINED

    folder = output or PRETRAINED
    make_folder(folder)
    return folder


def evaluate(
    data: DataArgument = None,
    seed: SeedOption = 0,
    stability: Annotated[
        int,
        typer.Option(
            "--stability",
            min=0,
            metavar="N",
            help="Number of further plans per model, from other seeds and redrawn times.",
        ),
    ] = 0,
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAMES", help="Recorded models to evaluate.")
    ] = None,
    time_limit: CommandLimitOption = TIME_LIMIT,
    json: JsonFlag = False,
) -> None:
    """Evaluate the cost model on left-out models: prediction errors, and losses of their plans."""
    from layoutsel.cost.training import TrainingOptions
    from layoutsel.evaluation.evaluate import evaluate as judge

    with limited(time_limit), activity() as shown:
        found = judge(
            _read(data),
            TrainingOptions(seed=seed),
            lambda name, number, count: shown.phase(f"holding out {name} ({number} of {count})"),
            stability,
            parse_names(only) or (),
        )
    if json:
        terminal.show_json(found)
        return
    from layoutsel.report.learn_tables import accuracy_table, regret_table, whole_model_lines

    terminal.show(accuracy_table(found), "", *whole_model_lines(found), "", regret_table(found))


def calibrate(
    threads: ThreadsOption = None,
    units: UnitsOption = None,
    most: Annotated[
        int, typer.Option("--most", min=4, metavar="N", help="Maximum number of measurements.")
    ] = 120,
    limit: Annotated[
        str, typer.Option("--limit", metavar="TIME", help="Time limit for measuring.")
    ] = "45s",
    cost_model: CostModelOption = None,
    json: JsonFlag = False,
) -> None:
    """Adapt the learned cost model to this machine with a few informative measurements."""
    from layoutsel.cli.options import parse_seconds
    from layoutsel.compile.calibration import calibrate as adapt_model

    with activity() as shown:
        shown.phase("choosing what to measure")
        report = adapt_model(
            threads=threads,
            units=parse_names(units),
            most=most,
            limit_s=parse_seconds(limit),
            cost_model=cost_model,
            progress=shown,
        )
    if json:
        terminal.show_json(asdict(report))
        return
    terminal.show_text(
        f"{report.measurements} measurements in {report.seconds:.0f} s: mean error "
        f"{100 * report.error_before:.1f} % before, {100 * report.error_after:.1f} % after "
        f"(each candidate predicted from the others)"
    )
    terminal.show_text(f"kept in {report.file}")


def _read(data: list[Path] | None) -> Dataset:
    from layoutsel.cost.datasets import data_files
    from layoutsel.cost.logs import read_logs

    dataset, skipped = read_logs(data_files(data))
    for part in skipped:
        terminal.note("skipped", f"{part.count} in {part.file}: {part.reason}")
    return dataset
