"""``layoutsel runtime``: write the wheel that a device needs to run bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError


def runtime(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the wheel, whose file name is fixed.",
        ),
    ] = Path(),
    tvm_wheel: Annotated[
        Path | None,
        typer.Option(
            "--tvm-wheel",
            metavar="FILE",
            help="A wheel of apache-tvm for the device's platform.",
            show_default="the installed one",
        ),
    ] = None,
    extras: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="UNIT", help="Unit whose libraries to pack: onednn."),
    ] = None,
) -> None:
    """Write the wheel for a device: `layoutsel-measure` with TVM's runtime, under 64 MiB.

    It depends on apache-tvm-ffi alone.
    """
    check_output(output / "wheel")
    from layoutsel.bundling.runtime_wheel import EXTRAS, write_kit

    for name in extras or ():
        if name not in EXTRAS:
            raise LayoutselError(f"--with {name}: expected one of {', '.join(EXTRAS)}")
    kit = write_kit(output, tvm_wheel, tuple(dict.fromkeys(extras or ())))
    for what in kit.without:
        terminal.note("without", what)
    terminal.show_text(
        f"written to {kit.path} ({kit.path.stat().st_size / 1e6:,.1f} MB; unpacked, "
        f"with apache-tvm-ffi, {kit.unpacked_bytes / 2**20:,.1f} MiB)"
    )
