"""``layoutsel bench``: time models on layoutsel and other engines."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layoutsel.cli.options import (
    CacheOption,
    CostOption,
    FallbackOption,
    LinksFlag,
    MaxErrorOption,
    PrecisionOption,
    ShapeOption,
    StrategyOption,
    UnitsOption,
    parse_names,
    parse_shapes,
)
from layoutsel.core.choices import check_fallback
from layoutsel.core.exit_codes import USER_ERROR
from layoutsel.core.files import check_output, make_folder
from layoutsel.core.precision import F32, precision_mode
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from layoutsel.benchmarking.compare import Row

DEFAULT_THREADS = 2
"""Default number of threads of each engine."""
DEFAULT_PEERS = "onnxruntime,openvino"
"""Engines to compare with by default."""


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="ONNX files, light:<name>, arch:<name> or zoo:<name>.",
            show_default=False,
        ),
    ],
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="ENGINES",
            help="Engines among onnxruntime, onnxruntime-tuned, openvino, openvino-tuned, "
            "torch-inductor, mnn, ncnn, tvm, tvm-tuned.",
        ),
    ] = DEFAULT_PEERS,
    precision: PrecisionOption = "f32",
    max_rel_error: MaxErrorOption = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, metavar="N", help="Number of threads of each engine.")
    ] = DEFAULT_THREADS,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the rows as JSON.", show_default=False),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, metavar="N", help="Number of turns of each engine.")
    ] = 12,
    cost: CostOption = "auto",
    strategy: StrategyOption = "joint",
    units: UnitsOption = None,
    shape: ShapeOption = None,
    cache: CacheOption = None,
    fallback: FallbackOption = None,
    tuning_trials: Annotated[
        int,
        typer.Option(
            "--tuning-trials", min=1, metavar="N", help="MetaSchedule trials of tvm-tuned."
        ),
    ] = 2000,
    tuning_log: Annotated[
        Path | None,
        typer.Option(
            "--tuning-log",
            metavar="FOLDER",
            help="Keep the trials of tvm-tuned here, and run only those that it lacks.",
            show_default=False,
        ),
    ] = None,
    allow_external_links: LinksFlag = False,
) -> None:
    """Time models on layoutsel and other engines, interleaved, one process per engine."""
    check_output(json)
    if tuning_log is not None:
        make_folder(tuning_log)
    precision_mode(precision, max_rel_error)
    check_fallback(fallback)
    options = {
        "cost": cost,
        "strategy": strategy,
        "units": parse_names(units),
        "cache": cache,
        "max_rel_error": max_rel_error,
        "fallback": fallback,
    }
    rows, failures = bench_models(
        models,
        peers=parse_names(against) or (),
        precision=precision,
        threads=threads,
        rounds=rounds,
        shapes=parse_shapes(shape),
        options=options,
        tuning_trials=tuning_trials,
        tuning_log=tuning_log,
        json=json,
        allow_external_links=allow_external_links,
    )
    show_rows(rows)
    if json is not None:
        terminal.show_text(f"written to {json}")
    if failures:
        raise typer.Exit(USER_ERROR)


def bench_models(
    models: Sequence[str],
    *,
    peers: Sequence[str],
    json: Path | None = None,
    **settings: Any,
) -> tuple[list[Row], int]:
    """Compare engines on each model; unreadable models among several are skipped with an error.

    Parameters
    ----------
    models
        Paths of ONNX files, or names such as ``light:resnet50``.
    peers
        Engines to compare with.
    json
        File for the rows; written after every model.
    **settings
        Fields of :class:`layoutsel.benchmarking.compare.ComparisonSettings`.

    Returns
    -------
    tuple
        The rows, and the number of skipped models.

    Raises
    ------
    LayoutselError
        If no model is readable.
    """
    from layoutsel.benchmarking.compare import (
        OURS,
        ComparisonSettings,
        check_engines,
        compare,
        save,
    )

    engines = tuple(dict.fromkeys([OURS, *peers]))
    check_engines(engines)
    made = ComparisonSettings(engines=engines, **settings)
    rows: list[Row] = []
    failures = 0
    with _reporting() as report:
        for index, model in enumerate(models):
            place = f"{index + 1} of {len(models)}: " if len(models) > 1 else ""
            try:
                rows += compare(model, made, _prefixed(report, f"{place}{model}: "))
            except LayoutselError as error:
                if len(models) == 1:
                    raise
                terminal.error(str(error))
                failures += 1
            if json is not None and rows:
                save(json, rows)
    if not rows:
        raise LayoutselError(f"none of the {len(models)} models could be read")
    return rows, failures


def _prefixed(report: Callable[[str], None], prefix: str) -> Callable[[str], None]:
    """Function that reports a text after a prefix."""
    return lambda text: report(f"{prefix}{text}")


@contextlib.contextmanager
def _reporting() -> Iterator[Any]:
    """Show progress in one line on a terminal; show nothing elsewhere."""
    console = terminal.stderr()
    if not console.is_terminal:
        yield lambda _text: None
        return
    with console.status("starting") as status:
        yield status.update


def show_rows(rows: Sequence[Row]) -> None:
    """Print the rows with their ratios, and conclusions over all models."""
    from layoutsel.benchmarking.compare import OURS
    from layoutsel.report.plan_tables import new_table

    numbers = (
        "median ms",
        "p10",
        "p90",
        "runs",
        "× layoutsel",
        "rel. L2 error",
        "load s",
        "peak MB",
    )
    mixed = ("precision",) if any(row.precision != F32 for row in rows) else ()
    table = new_table("model", "engine", *mixed, *numbers, "error", right=numbers)
    for model, members in _by_model(rows).items():
        ours = members.get(OURS)
        for row in members.values():
            precise = (row.precision for _ in mixed)
            table.add_row(model, row.engine, *precise, *_cells(row, ours), row.error or "")
    terminal.show(table)
    for line in (*_settings(rows), *_accuracies(rows), *_conclusions(rows)):
        terminal.show_text(line)


def _by_model(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    grouped: dict[str, dict[str, Row]] = {}
    for row in rows:
        grouped.setdefault(row.model, {})[row.engine] = row
    return grouped


def _cells(row: Row, ours: Row | None) -> list[str]:
    if row.median_ms is None or row.p10_ms is None or row.p90_ms is None:
        return [""] * 8
    ratio = ""
    if ours is not None and ours.median_ms and ours is not row:
        ratio = f"{row.median_ms / ours.median_ms:.2f}"
    return [
        f"{row.median_ms:.3f}",
        f"{row.p10_ms:.3f}",
        f"{row.p90_ms:.3f}",
        str(row.runs),
        ratio,
        "" if row.rel_l2_err is None else f"{row.rel_l2_err:.1e}",
        f"{row.load_s:.2f}",
        f"{row.peak_rss_mb:.0f}",
    ]


def _settings(rows: Sequence[Row]) -> Iterator[str]:
    """Settings of each engine."""
    for row in rows:
        if row.settings:
            yield f"{row.model}: settings of {row.engine}: {row.settings}"


def _accuracies(rows: Sequence[Row]) -> Iterator[str]:
    """Errors of each engine, by kind of result."""
    from layoutsel.benchmarking.accuracy import worst_by_kind

    for row in rows:
        if row.accuracy:
            errors = "; ".join(map(str, worst_by_kind(row.accuracy)))
            yield f"{row.model}: relative L2 error of {row.engine}: {errors}"


def _conclusions(rows: Sequence[Row]) -> Iterator[str]:
    """Ratios to the fastest engine of each model, and to each engine over all models."""
    from layoutsel.benchmarking.compare import OURS

    against_fastest: dict[str, float] = {}
    against: dict[str, list[float]] = {}
    for model, members in _by_model(rows).items():
        ours = _median(members, OURS)
        peers = {name: _median(members, name) for name in members if name != OURS}
        ratios = {name: ms / ours for name, ms in peers.items() if ms and ours}
        for name, ratio in ratios.items():
            against.setdefault(name, []).append(ratio)
        if ratios:
            fastest = min(ratios, key=lambda name: ratios[name])
            against_fastest[model] = ratios[fastest]
            yield f"{model}: {ratios[fastest]:.2f}× as fast as the fastest peer, {fastest}"
    if len(against_fastest) > 1:
        mean = statistics.geometric_mean(against_fastest.values())
        count = len(against_fastest)
        yield f"geometric mean over {count} models: {mean:.2f}× the fastest peer of each"
        for name, ratios_of in against.items():
            mean = statistics.geometric_mean(ratios_of)
            yield f"  against {name}: {mean:.2f}× ({len(ratios_of)} models)"


def _median(members: Mapping[str, Row], engine: str) -> float | None:
    row = members.get(engine)
    value = row.median_ms if row else None
    return value if value and math.isfinite(value) else None
