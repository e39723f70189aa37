"""``layoutsel profile``: fill the log of measurements for training cost models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.options import (
    CacheOption,
    LimitOption,
    LinksFlag,
    PrecisionOption,
    ShapeOption,
    ThreadsOption,
    UnitsOption,
    parse_names,
    parse_seconds,
    parse_shapes,
)
from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError
from tvm_passes.limits import parse_limits

SWEEP_PART = 40
"""Maximum number of sub-graphs of a sweep that are built and measured as one model."""


def profile(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Models, as for other commands."),
    ] = None,
    sweep: Annotated[
        int,
        typer.Option(
            "--sweep",
            min=0,
            metavar="N",
            help="Number of random sub-graphs with the shapes of real networks.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the sweep.")] = 0,
    best: Annotated[
        int | None,
        typer.Option(
            "--best",
            min=1,
            metavar="N",
            help="Measure only the N candidates of each sub-graph and precision that are predicted "
            "to be the fastest, and a random one.",
            show_default="all",
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--import",
            metavar="FILE",
            help="Results of layoutsel-measure on another machine, to import. Repeatable.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="FILE", help="Data set to write, with all known measurements."
        ),
    ] = None,
    contribute: Annotated[
        Path | None,
        typer.Option(
            "--contribute",
            metavar="FILE",
            help="Data set to write, or its folder: standard networks on this machine.",
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option("--budget", metavar="TIME", help="Time limit for measuring, --contribute."),
    ] = "20m",
    units: UnitsOption = None,
    precision: PrecisionOption = "f32",
    threads: ThreadsOption = None,
    shape: ShapeOption = None,
    cache: CacheOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
) -> None:
    """Measure every candidate and boundary of models, or of a sweep, into the log of measurements.

    Known candidates are not measured again. Ctrl-C keeps everything, and the same command
    continues. To imitate other machines, use `taskset` and ONEDNN_MAX_CPU_ISA=AVX2.
    """
    if contribute is not None:
        _contribute(contribute, budget, threads, cache, alone=not (models or sweep or results))
        return
    if not models and not sweep and not results:
        raise LayoutselError("nothing to profile: give a MODEL, --sweep N or --import FILE")
    check_output(save)
    _import(results or [], cache)
    if not models and not sweep:
        return
    from layoutsel.compile.measuring import cost_model
    from layoutsel.compile.offers import Offers
    from layoutsel.compile.recording import recorded_model
    from layoutsel.compile.session import Session

    recorded: list[Any] = []
    with activity() as shown:
        for name, source in _sources(models or [], sweep, seed):
            shown.phase(f"opening {name}")
            session = Session.open(
                source,
                shapes=parse_shapes(shape) if isinstance(source, str) else None,
                units=parse_names(units),
                threads=threads,
                precision=precision,
                cache=cache,
                progress=shown,
                allow_external_links=allow_external_links,
                limits=parse_limits(import_limit),
            )
            offers = Offers.of(session)
            with cost_model(offers, "measured", best=best) as model:
                known = model.store.count()
            if save is not None and isinstance(source, str):
                recorded.append(recorded_model(offers))
            terminal.note("profiled", f"{name}: {known} measurements in the log")
    terminal.show_text(f"{shown.measured} new measurements")
    if save is not None:
        _save(save, cache, recorded)


def _contribute(
    file: Path, budget: str, threads: int | None, cache: Path | None, *, alone: bool
) -> None:
    if not alone:
        raise LayoutselError(
            "--contribute measures standard networks: it takes no MODEL, --sweep or --import"
        )
    limit_s = parse_seconds(budget)
    from layoutsel.compile.contribution import contribute

    with activity() as shown:
        made = contribute(file, budget_s=limit_s, threads=threads, cache=cache, progress=shown)
    terminal.show_text(
        f"{made.samples} samples written to {made.file} after {made.seconds:.0f} s; "
        f"whole networks: {', '.join(made.models) or 'none'}"
    )


def _import(files: list[Path], cache: Path | None) -> None:
    if not files:
        return
    from layoutsel.bundling.bring_home import bring_home

    for file in files:
        kept = bring_home(file, cache)
        if not kept.complete:
            terminal.note("warning", f"{file}: measuring was interrupted and can be continued")
        if kept.deployed is not None:
            timing = kept.deployed.timing
            terminal.show_text(
                f"{kept.model}: {timing.us / 1e3:.3f} ± {timing.spread_us / 1e3:.3f} ms "
                f"on {kept.machine}"
            )
        if kept.machine_file is not None:
            terminal.show_text(
                f"{kept.model}: {kept.measurements} measurements and {kept.failures} failures on "
                f"{kept.machine} are in the log; plan for it with --machine {kept.machine_file}"
            )


def _sources(models: list[str], sweep: int, seed: int) -> Iterator[tuple[str, Any]]:
    yield from ((model, model) for model in models)
    if sweep:
        from layoutsel.zoo.sweep import sweep_module

        for part in range(-(-sweep // SWEEP_PART)):
            count = min(SWEEP_PART, sweep - part * SWEEP_PART)
            yield f"sweep {seed}, part {part}", sweep_module(count, seed=1000 * seed + part)


def _save(file: Path, cache: Path | None, recorded: list[Any]) -> None:
    from dataclasses import replace

    from layoutsel.cost.archive import write_archive
    from layoutsel.cost.logs import read_logs
    from layoutsel.cost.store import default_path

    dataset, skipped = read_logs([cache or default_path()])
    for part in skipped:
        terminal.note("skipped", f"{part.count} in {part.file}: {part.reason}")
    write_archive(replace(dataset, models=tuple(recorded)), file)
    terminal.show_text(f"{len(dataset.samples)} samples written to {file}")
