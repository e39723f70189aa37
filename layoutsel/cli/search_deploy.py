"""``layoutsel search deploy``: a found network, compiled for its nodes, run and timed there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.cluster_nodes import (
    AddressOption,
    InsecureFlag,
    TlsOption,
    TokenOption,
    security_of,
)
from layoutsel.cli.options import CostOption
from layoutsel.cli.search_options import say
from layoutsel.report import terminal

if TYPE_CHECKING:
    from layoutsel.search.found import Measurement


def deploy(
    network: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder of a found network, such as run/3.", show_default=False
        ),
    ],
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="emulated|local|ray",
            help="Threads of this process with the links and loads of the search, such threads "
            "without them, or nodes that have joined.",
        ),
    ] = "emulated",
    requests: Annotated[
        int,
        typer.Option(
            "--requests", min=3, max=10_000, metavar="N", help="Number of timed requests."
        ),
    ] = 40,
    cost: CostOption = "learned",
    address: AddressOption = "auto",
    token_file: TokenOption = None,
    tls: TlsOption = None,
    insecure: InsecureFlag = False,
) -> None:
    """Compile a found network for its nodes, run it there, and compare it with its prediction."""
    from layoutsel.search.deploying import measure
    from layoutsel.search.run_folder import network_in

    run, found = network_in(network)
    found = measure(
        run,
        found,
        say,
        engine=engine,
        requests=requests,
        security=security_of(token_file, tls, insecure),
        address=address,
        cost=cost,
    )
    terminal.show_text(measured_line(found.measured[-1]))


def measured_line(made: Measurement) -> str:
    """Measured and predicted times in one line."""
    return (
        f"measured {made.median_us / 1e3:.2f} ms, half the interquartile range "
        f"{made.measured_spread_us / 1e3:.2f} ms; predicted {made.predicted_us / 1e3:.2f} ms, "
        f"{100 * made.relative_error:+.1f} %, and {made.staged_us / 1e3:.2f} ms with compiled "
        f"stages timed alone; relative error of the outputs {made.error:.1e}"
    )
