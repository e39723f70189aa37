"""``layoutsel exits bench``: an artifact against its own trunk alone and exits in sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.exits_run import ArtifactArgument, FirstOption, SamplesArgument
from layoutsel.cli.options import JsonFlag, parse_seconds
from layoutsel.report import terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from layoutsel.exits.comparing import Answered

SCHEMA_VERSION = 1
"""Version of the JSON output."""


def bench(
    artifact: ArtifactArgument,
    data: SamplesArgument,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, metavar="N", help="Number of rounds over all samples.")
    ] = 3,
    time_limit: Annotated[
        str,
        typer.Option(
            "--time-limit",
            metavar="TIME",
            help="Time after which no round begins; one is always completed.",
        ),
    ] = "60s",
    first: FirstOption = None,
    json: JsonFlag = False,
) -> None:
    """Time an artifact, its exits in sequence, and its trunk alone, sample by sample in turns."""
    limit_s = parse_seconds(time_limit)
    from layoutsel.exits.comparing import compare, contenders
    from layoutsel.exits.samples import read_samples

    with activity() as shown, contenders(artifact) as models:
        compiled = next(iter(models.values())).compiled
        (_, classes) = compiled.outputs[0].shape
        samples = read_samples(data, compiled.inputs, classes).first(first)
        shown.phase(f"answering {len(samples.inputs)} samples with {len(models)} arrangements")
        found = compare(models, samples, rounds=rounds, time_limit_s=limit_s)
    if json:
        terminal.show_json(describe(found))
    else:
        terminal.show(comparison_table(found))


def describe(found: Mapping[str, Answered]) -> dict[str, Any]:
    """Collect the figures of a comparison as JSON data."""
    rows = [{"name": name, **one.summary()} for name, one in found.items()]
    return {"schema_version": SCHEMA_VERSION, "arrangements": rows}


def comparison_table(found: Mapping[str, Answered]) -> Table:
    """Table of latencies, milliseconds, with the share of each exit; ratios are to the first."""
    from layoutsel.report.plan_tables import new_table

    columns = ("mean", "p50", "p95", "p99", "× mean", "answers", "right %")
    table = new_table("milliseconds", *columns, "answered by", right=columns)
    base_us = next(iter(found.values())).times_us.mean()
    for name, one in found.items():
        times_us, accuracy = one.latencies(), one.accuracy
        table.add_row(
            name,
            *(f"{us / 1e3:.3f}" for us in times_us.values()),
            f"{times_us['mean_us'] / base_us:.2f}",
            f"{len(one.answers):,}",
            "" if accuracy is None else f"{100 * accuracy:.2f}",
            ", ".join(f"{exit_} {share:.1%}" for exit_, share in sorted(one.shares.items())),
        )
    return table
