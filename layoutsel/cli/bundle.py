"""``layoutsel bundle``: compile for a device that is out of reach."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.activity import Activity, activity
from layoutsel.cli.options import (
    LimitOption,
    LinksFlag,
    LogsOption,
    MachineOption,
    MaxErrorOption,
    ModelArgument,
    PrecisionOption,
    ShapeOption,
    ThreadsOption,
    UnitsOption,
    parse_names,
    parse_shapes,
)
from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError
from tvm_passes.limits import parse_limits

if TYPE_CHECKING:
    from layoutsel.bundling.making import Making
    from layoutsel.device.manifest import Manifest


def bundle(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Bundle to write.", show_default=False),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="Target of the machine, such as 'llvm -mcpu=skylake-avx512' or 'cuda "
            "-arch=sm_80', or TVM's JSON. Repeatable, once per kind.",
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
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="Plan to deploy; the bundle then holds the whole model, not all candidates.",
        ),
    ] = None,
    machine: MachineOption = None,
    precision: PrecisionOption = "f32",
    max_rel_error: MaxErrorOption = None,
    units: UnitsOption = None,
    threads: ThreadsOption = None,
    shape: ShapeOption = None,
    logs: LogsOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
) -> None:
    """Compile all candidates of a model, or a plan, into a bundle for a device without a compiler.

    There, `layoutsel-measure` times and checks the contents; `layoutsel runtime` writes its wheel.
    """
    check_output(output)
    if machine is not None and target:
        raise LayoutselError(
            "--machine and --target exclude each other: both describe the machine to compile for"
        )
    if plan is not None and (precision != "f32" or max_rel_error is not None):
        raise LayoutselError(
            "--plan and --precision exclude each other: a plan file states its precision"
        )
    asked = BundleRequest(
        model=model,
        targets=tuple(target or ()),
        compiler=compiler,
        machine=machine,
        precision=precision,
        max_rel_error=max_rel_error,
        units=units,
        threads=threads,
        shapes=shape,
        logs=logs,
        allow_external_links=allow_external_links,
        import_limit=import_limit,
    )
    with activity() as shown:
        shown.phase(f"importing {model}")
        manifest = _deploy(asked, plan, output, shown) if plan else _write(asked, output, shown)
    for one in manifest.unbuilt:
        terminal.note("unbuilt", f"{one.label}: {one.reason}")
    what = f"{len(manifest.candidates)} candidates and {len(manifest.boundaries)} boundaries"
    what = f"{manifest.model} as planned" if plan else what
    terminal.show_text(f"{what} written to {output} ({output.stat().st_size / 1e6:,.1f} MB)")


@dataclass(frozen=True, kw_only=True)
class BundleRequest:
    """Options of the command, as given."""

    model: str
    """Path of an ONNX file, or a name such as ``light:resnet50``."""
    targets: tuple[str, ...]
    """Targets of the machine."""
    compiler: str | None
    """C++ compiler that links for the machine."""
    machine: Path | None
    """File that describes the machine."""
    precision: str
    """Precision mode."""
    max_rel_error: float | None
    """Largest relative L2 error of an output, for ``auto``."""
    units: str | None
    """Names of the compute units."""
    threads: int | None
    """Number of threads."""
    shapes: list[str] | None
    """Shapes of inputs with dynamic dimensions."""
    logs: Path | None
    """Folder of tuning records."""
    allow_external_links: bool
    """True if links among external data may lead out of the model's folder."""
    import_limit: list[str] | None
    """Limits of the import."""

    @contextmanager
    def making(self, shown: Activity) -> Iterator[Making]:
        """Open a session for the machine, and a temporary folder for the bundle."""
        from layoutsel.bundling.making import Making
        from layoutsel.bundling.targets import check_compilers, machine_of_targets
        from layoutsel.compile.session import Session

        cross_target = machine_of_targets(self.targets, self.threads)
        session = Session.open(
            self.model,
            shapes=parse_shapes(self.shapes),
            units=parse_names(self.units),
            threads=self.threads
            or (int(cross_target.host.attrs["num-cores"]) if cross_target else None),
            precision=self.precision,
            max_rel_error=self.max_rel_error,
            logs=self.logs,
            cross_target=cross_target,
            machine=self.machine,
            allow_external_links=self.allow_external_links,
            limits=parse_limits(self.import_limit),
        )
        check_compilers(session.cross_target, self.compiler)
        with tempfile.TemporaryDirectory(prefix="layoutsel-bundle-") as folder:
            yield Making(session, Path(folder), self.compiler, shown.compiled)


def _write(asked: BundleRequest, output: Path, shown: Activity) -> Manifest:
    from layoutsel.bundling.candidates import write_candidates

    with asked.making(shown) as making:
        return write_candidates(making, output)


def _deploy(asked: BundleRequest, file: Path, output: Path, shown: Activity) -> Manifest:
    from layoutsel.bundling.deployment import write_deployment
    from layoutsel.planning.plan import Plan

    plan = Plan.load(file)
    stated = replace(
        asked,
        threads=asked.threads or plan.threads,
        precision=plan.precision,
        max_rel_error=plan.max_rel_error,
        units=asked.units or ",".join(sorted({d.unit for d in plan.decisions.values()})),
    )
    with stated.making(shown) as making:
        shown.phase("building the plan")
        return write_deployment(making, plan, output)
