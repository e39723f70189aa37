"""``layoutsel search bench``: the surrogate's search and others on a table of known networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.options import JsonFlag, parse_names
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from layoutsel.search.tabular_bench import MethodSummary


def bench(
    table: Annotated[
        Path,
        typer.Option(
            "--table",
            metavar="FILE.npz",
            help="Accuracies and times of all networks of NAS-Bench-201.",
            show_default=False,
        ),
    ],
    budget: Annotated[
        int,
        typer.Option(
            "--budget", min=20, max=1000, metavar="N", help="Accuracies that a search asks."
        ),
    ] = 100,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, metavar="N", help="Number of searches of each kind.")
    ] = 8,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="NAMES",
            help="Methods to compare; some need pip install 'layoutsel[bench]'.",
            show_default="all",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option("--devices", metavar="NAMES", help="Devices.", show_default="five"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAMES", help="Data sets.", show_default="three"),
    ] = None,
    limits: Annotated[
        str | None,
        typer.Option(
            "--limits",
            metavar="TIMES",
            help="Limits such as 5ms,8ms: accuracy is lacking to the best network within each.",
            show_default="ten by device",
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Compare searches by the hypervolume that they reach with few accuracies.

    "surrogate within limits" asks for the most accurate network within each limit of time instead.
    """
    from layoutsel import documents
    from layoutsel.search.pool_search import METHODS
    from layoutsel.search.tabular import NetworkTable
    from layoutsel.search.tabular_bench import DATA_SETS, DEVICES, row_of, summaries, tasks
    from layoutsel.search.two_devices import parse_time_us

    names = _known("--methods", methods, tuple(METHODS))
    held = NetworkTable.load(table)
    limits_us = [parse_time_us("--limits", one) for one in parse_names(limits) or ()]
    sets = _known("--data", data, DATA_SETS)
    chosen = list(tasks(held, parse_names(devices) or DEVICES, sets, limits_us))
    rows = []
    with activity() as shown:
        for task in chosen:
            for name in names:
                shown.phase(f"{name}: {task.device}, {task.data}")
                rows += [row_of(task, name, seed, budget) for seed in range(seeds)]
    found = summaries(rows)
    if json:
        terminal.show_json([documents.to_json(one) for one in found])
    else:
        terminal.show(_table(found))


def _known(option: str, text: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    names = parse_names(text) or known
    for name in names:
        if name not in known:
            raise LayoutselError(f"{option} {name}: expected some of {', '.join(known)}")
    return names


def _table(found: Sequence[MethodSummary]) -> Table:
    """Table of methods: hypervolumes relative to that of all networks, and our gain."""
    from layoutsel.report.plan_tables import new_table

    columns = ("method", "median", "worst", "lacking accuracy", "gain of the first", "p")
    table = new_table(*columns, right=columns[1:])
    for one in found:
        table.add_row(
            one.method,
            f"{one.median:.4f}",
            f"{one.worst:.4f}",
            f"{100 * one.regret:.2f} %",
            "-" if one.gain is None else f"{one.gain.mean:+.4f}",
            "-" if one.p_holm is None else f"{one.p_holm:.2g}",
        )
    return table
