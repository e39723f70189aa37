"""``layoutsel exits bench``: an artifact against its own trunk alone and exits in sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.exits_run import ArtifactArgument, FirstOption, SamplesArgument
from layoutsel.cli.options import JsonFlag, parse_seconds
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

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
    loads: Annotated[
        str,
        typer.Option(
            "--loads",
            metavar="L1,L2,…",
            help="Percentages of the time for which another process computes on the first core.",
        ),
    ] = "0",
    first: FirstOption = None,
    json: JsonFlag = False,
) -> None:
    """Time an artifact, exits in sequence, and its trunk alone, sample by sample in turns."""
    limit_s, shares = parse_seconds(time_limit), parse_loads(loads)
    from layoutsel.exits.comparing import BY_LOAD, SETTLE_S, busy_core, compare, contenders
    from layoutsel.exits.samples import read_samples

    with activity() as shown, contenders(artifact) as models:
        compiled = next(iter(models.values())).compiled
        (_, classes) = compiled.outputs[0].shape
        samples = read_samples(data, compiled.inputs, classes).first(first)
        found = {}
        settle_s = SETTLE_S if BY_LOAD in models else 0.0
        for share in shares:
            shown.phase(
                f"answering {len(samples.inputs)} samples with {len(models)} arrangements, "
                f"load {share:.0%}"
            )
            with busy_core(share, settle_s=settle_s):
                found[share] = compare(models, samples, rounds=rounds, time_limit_s=limit_s)
    if json:
        terminal.show_json(describe(found))
        return
    for share, one in found.items():
        title = [f"load {share:.0%} of the first core"] if len(found) > 1 else []
        terminal.show(*title, comparison_table(one))


def parse_loads(text: str) -> tuple[float, ...]:
    """Parse ``0,50,100`` as shares.

    Raises
    ------
    LayoutselError
        If the text is not made of different percentages.
    """
    try:
        found = tuple(float(part) / 100 for part in text.split(","))
    except ValueError:
        found = ()
    if not found or len(set(found)) < len(found) or not all(0 <= one <= 1 for one in found):
        raise LayoutselError(
            f"--loads {text}: expected different numbers from 0 to 100, such as 0,50,100"
        )
    return found


def describe(found: Mapping[float, Mapping[str, Answered]]) -> dict[str, Any]:
    """Collect the figures of comparisons, by load, as JSON data."""
    rows = [
        {"name": name, "load": share, **one.summary()}
        for share, compared in found.items()
        for name, one in compared.items()
    ]
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
