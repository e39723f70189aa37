"""``layoutsel tune``: search for schedules of a model's sub-graphs, for later plans to use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.options import LimitOption, LinksFlag, LogsOption, ShapeOption, ThreadsOption
from layoutsel.cli.planner import opened, options_of
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from tvm.target import Target

    from layoutsel.tuning.devices import Device
    from layoutsel.tuning.progress import TuningProgress
    from layoutsel.tuning.tasks import Task


def tune(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="ONNX files, or light:<name>, arch:<name> and zoo:<name>, as for other commands.",
            show_default=False,
        ),
    ],
    trials: Annotated[
        int,
        typer.Option(
            "--trials",
            metavar="N",
            min=1,
            help="Number of schedules for every distinct sub-graph and layout, including recorded "
            "ones.",
        ),
    ] = 64,
    unit: Annotated[
        str,
        typer.Option(
            "--unit", metavar="UNIT", help="Compute unit to tune for: cpu, opencl or cuda."
        ),
    ] = "cpu",
    logs: LogsOption = None,
    tracker: Annotated[
        str | None,
        typer.Option(
            "--tracker",
            metavar="HOST:PORT",
            help="TVM RPC tracker whose servers measure, instead of this machine.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="Key of the tracker's servers; needs --tracker.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="TVM target of the servers; needs --tracker.",
            show_default="this machine's",
        ),
    ] = None,
    threads: ThreadsOption = None,
    shape: ShapeOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
) -> None:
    """Tune the sub-graphs of models for a unit with MetaSchedule; the search can be continued.

    Plans offer the results as the algorithm 'tuned', and use them where they measure faster.
    """
    _check(unit, tracker, key, target)
    with activity() as shown:
        options = options_of(
            shape=shape,
            units=unit,
            threads=threads,
            allow_external_links=allow_external_links,
            import_limit=import_limit,
        )
        sessions = [opened(model, options, shown) for model in models]
        shown.phase("collecting tasks")
        from layoutsel.tuning.tasks import gather_tasks

        tasks = gather_tasks(sessions, unit)
    device = _device(tracker, key, sessions[0].threads)
    from layoutsel.tuning.database import default_folder

    folder = logs or default_folder()
    threads_used = sessions[0].threads
    results = _run(tasks, trials, _target(unit, target, threads_used), threads_used, device, folder)
    from layoutsel.report.tune_tables import summary, task_table

    terminal.show(task_table(results))
    terminal.show_text(summary(results))
    terminal.show_text(f"records in {folder}")


def _check(unit: str, tracker: str | None, key: str | None, target: str | None) -> None:
    """Reject contradictory options, and units whose code no records describe."""
    from tvm_passes.algorithms.tuned import ALGORITHM

    if unit not in ALGORITHM.units:
        raise LayoutselError(
            f"--unit {unit!r}: no schedules can be tuned for it; expected one of "
            f"{', '.join(ALGORITHM.units)}"
        )
    if (tracker is None) != (key is None):
        given, missing = ("--tracker", "--key") if key is None else ("--key", "--tracker")
        raise LayoutselError(f"{given} without {missing}: expected both or none")
    if target is not None and tracker is None:
        raise LayoutselError("--target without --tracker: tuning here is for this machine")


def _device(tracker: str | None, key: str | None, threads: int) -> Device:
    from layoutsel.tuning.devices import LocalDevice
    from layoutsel.tuning.remote import RemoteDevice, Tracker

    if tracker is None or key is None:
        return LocalDevice(threads)
    return RemoteDevice(Tracker.parse(tracker, key))


def _target(unit: str, text: str | None, threads: int) -> Target:
    """Target of the schedules; the CPU's with its number of threads."""
    from tvm.target import Target

    from tvm_passes.backends import target_kind
    from tvm_passes.cpu import host_target
    from tvm_passes.devices import HOST
    from tvm_passes.gpu.target import device_target

    kind = target_kind(unit) or HOST
    if text is None and kind != HOST:
        return device_target(kind, host_target())
    try:
        target = host_target() if text is None else Target(text)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise LayoutselError(f"--target {text!r}: TVM rejects it: {reason}") from error
    if target.kind.name != kind:
        raise LayoutselError(
            f"--target {text!r}: a target of kind {target.kind.name!r}; expected {kind!r}, the "
            f"kind of --unit {unit}"
        )
    if kind != HOST or (text is not None and target.attrs.get("num-cores")):
        return target
    return Target({**dict(target.export()), "num-cores": threads})


def _run(
    tasks: Sequence[Task],
    trials: int,
    target: Target,
    threads: int,
    device: Device,
    folder: Path,
) -> tuple[TuningProgress, ...]:
    from layoutsel.report.tune_display import TuningDisplay
    from layoutsel.tuning.database import Journal
    from layoutsel.tuning.log import logged
    from layoutsel.tuning.search import tune as search

    shown = TuningDisplay(len(tasks), trials)
    with Journal(folder) as journal, logged(folder), device, shown:
        try:
            return search(
                tasks,
                trials=trials,
                target=target,
                threads=threads,
                device=device,
                journal=journal,
                on_trial=shown,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; {shown.trials} new trials are kept in {folder}, the same command "
                f"continues from there"
            ) from None
