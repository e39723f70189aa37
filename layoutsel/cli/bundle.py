"""``layoutsel bundle``: compile for a device that cannot be reached from here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layoutsel.cli import terminal
from layoutsel.cli.activity import activity
from layoutsel.cli.files import check_output, replacing
from layoutsel.cli.options import (
    LogsOption,
    MaxErrorOption,
    ModelArgument,
    PrecisionOption,
    ShapeOption,
    ThreadsOption,
    UnitsOption,
    parse_names,
    parse_shapes,
)


def bundle(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write it.", show_default=False
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="What the machine has, such as 'llvm -mcpu=skylake-avx512' or 'cuda -arch=sm_80', or TVM's JSON. "
            "Repeatable, once per kind.",
            show_default="this machine",
        ),
    ] = None,
    compiler: Annotated[
        str | None,
        typer.Option(
            "--cc",
            metavar="COMPILER",
            help="C++ compiler that links for the machine, such as aarch64-linux-gnu-g++.",
            show_default="this machine's",
        ),
    ] = None,
    precision: PrecisionOption = "f32",
    max_rel_error: MaxErrorOption = None,
    units: UnitsOption = None,
    threads: ThreadsOption = None,
    shape: ShapeOption = None,
    logs: LogsOption = None,
) -> None:
    """Compile all candidates of a model into a bundle, which `layoutsel-measure` times on a device without a compiler."""
    check_output(output)
    with activity() as shown:
        shown.phase(f"importing {model}")
        from layoutsel.bundling.candidates import write_bundle
        from layoutsel.bundling.targets import check_compiler, elsewhere_of
        from layoutsel.session import Session

        machine = elsewhere_of(target or (), threads)
        check_compiler(machine, compiler)
        session = Session.open(
            model,
            shapes=parse_shapes(shape),
            units=parse_names(units),
            threads=threads or (int(machine.host.attrs["num-cores"]) if machine else None),
            precision=precision,
            max_rel_error=max_rel_error,
            logs=logs,
            elsewhere=machine,
        )
        with replacing(output) as temporary:
            manifest = write_bundle(session, temporary, compiler, shown.compiled)
    for one in manifest.unbuilt:
        terminal.note("unbuilt", f"{one.label}: {one.reason}")
    terminal.show_text(
        f"{len(manifest.candidates)} candidates and {len(manifest.boundaries)} boundaries written to {output} "
        f"({output.stat().st_size / 1e6:,.1f} MB)"
    )
