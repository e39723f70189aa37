"""The multi-exit network of a command: its options, and reading it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.options import parse_shapes

if TYPE_CHECKING:
    from layoutsel.cli.activity import Activity
    from layoutsel.exits.network import ExitNetwork
    from tvm_passes.limits import ImportLimits

SpecOption = Annotated[
    Path | None,
    typer.Option(
        "--spec",
        metavar="FILE",
        help="Specification of the exits (JSON), as 'layoutsel exits inspect -o' writes it.",
        show_default="the model's metadata, else a guess",
    ),
]


def network_of(
    shown: Activity,
    model: str,
    spec: Path | None,
    shape: Sequence[str] | None,
    allow_external_links: bool,
    limits: ImportLimits,
) -> ExitNetwork:
    """Read a network by the options of a command; the import is a phase of `shown`."""
    shown.phase(f"importing {model}")
    from layoutsel.exits.network import read

    return read(
        model,
        spec,
        shapes=parse_shapes(shape),
        allow_external_links=allow_external_links,
        limits=limits,
    )
