"""Options that several commands share, and their parsing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from layoutsel.core.choices import COSTS
from layoutsel.core.precision import MODES
from tvm_passes.errors import LayoutselError

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="ONNX file, light:<name> for a network of the onnx package, such as light:resnet50, "
        "arch:<name> for other networks, such as arch:mobilenet_v2, or zoo:<name> for exported "
        "ones, such as zoo:resnet34.",
        show_default=False,
    ),
]
DistributionsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Distributions that 'layoutsel cluster plan' wrote.",
        show_default=False,
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=DIMS",
        help="Shape of an input with dynamic dimensions, such as x=1,3,224,224. Repeatable.",
        show_default=False,
    ),
]
UnitsOption = Annotated[
    str | None,
    typer.Option(
        "--units",
        metavar="NAMES",
        help="Compute units to choose from, such as cpu,onednn.",
        show_default="all",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="Number of threads.", show_default="all cores"),
]
StrategyOption = Annotated[
    str,
    typer.Option(
        "--strategy",
        metavar="joint|score",
        help="Choose unit and layout together, or the unit by complexity score first.",
    ),
]
CostOption = Annotated[
    str,
    typer.Option(
        "--cost",
        metavar="|".join(COSTS),
        help="Predict times with the learned model (learned), and measure candidates that could "
        "change the plan (hybrid), or only if much is to be gained (auto); measure everything; or "
        "use peak rates alone.",
    ),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--measure-budget",
        metavar="TIME",
        help="Time limit for measuring with --cost auto and hybrid, or what the learned model has "
        "no data for, such as 20s or 2m.",
        show_default="20s, beyond f32 60s",
    ),
]
TimeLimitOption = Annotated[
    str | None,
    typer.Option(
        "--time-limit",
        metavar="TIME",
        help="Time limit for planning once candidates are priced, for racing plans, and for each "
        "step of verification, such as 90s or 10m.",
        show_default="300s",
    ),
]
MemoryLimitOption = Annotated[
    float | None,
    typer.Option(
        "--memory-limit",
        metavar="MB",
        help="Memory that compilation may use beyond that of the program itself.",
        show_default="three times the weights and 225",
    ),
]
CostModelOption = Annotated[
    Path | None,
    typer.Option(
        "--cost-model",
        metavar="DIR",
        help="Folder of a learned cost model that layoutsel train wrote.",
        show_default="the package's",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="|".join(MODES),
        help="f32 arithmetic only; also products of pairs of bfloat16, about as exact; also "
        "bfloat16; or all of them, as fast as --max-rel-error allows.",
    ),
]
MaxErrorOption = Annotated[
    float | None,
    typer.Option(
        "--max-rel-error",
        metavar="E",
        help="Largest relative L2 error of an output, for --precision auto.",
        show_default=f"{MODES['auto'].tolerance:g}",
    ),
]
CalibOption = Annotated[
    Path | None,
    typer.Option(
        "--calib",
        metavar="DATA.npz",
        help="Inputs to measure errors on: an array per input, samples along the first axis.",
        show_default="one random input",
    ),
]
PinsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--pin",
        metavar="PATTERN=DECISION",
        help="Decision to honour, such as 'conv_.*=onednn:NHWC', 'conv2d_3f2a9c=cpu', or "
        "'head=cuda@1' for the second device. Repeatable.",
        show_default=False,
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="FILE",
        help="File of measurements.",
        show_default="in the user's cache folder",
    ),
]
LogsOption = Annotated[
    Path | None,
    typer.Option(
        "--logs",
        metavar="DIR",
        help="Folder of tuning records that layoutsel tune wrote.",
        show_default="in the user's cache folder",
    ),
]
FallbackOption = Annotated[
    str | None,
    typer.Option(
        "--fallback",
        metavar="cpu",
        help="Continue with the host's units, with a warning, if a device is missing or fails.",
        show_default="error",
    ),
]
MachineOption = Annotated[
    Path | None,
    typer.Option(
        "--machine",
        metavar="FILE",
        help="Machine to plan for (JSON): its peak rates and those of its devices. Nothing is "
        "measured.",
        show_default="this one",
    ),
]
ObjectiveOption = Annotated[
    str | None,
    typer.Option(
        "--objective",
        metavar="sum|makespan|within-error",
        help="Value to minimise: time one after the other, time with host and devices at once "
        "(--parallel), or time within an error budget (--precision auto). Other packages may add "
        "others.",
        show_default="sum, or what other options ask for",
    ),
]
ParallelFlag = Annotated[
    bool,
    typer.Option(
        "--parallel",
        help="Let host and devices work at the same time: minimise the time until all are done, "
        "not the sum.",
    ),
]
LinksFlag = Annotated[
    bool,
    typer.Option(
        "--allow-external-links",
        help="Follow links among a model's external data anywhere; by default only within its "
        "folder, or the cache that the model itself is a link into.",
    ),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--import-limit",
        metavar="NAME=SIZE",
        help="Limit of the import: tensor=8GiB (bytes of one tensor that is not a stored weight), "
        "constants=2GiB (bytes of constants computed at import), nodes=200000, depth=100, "
        "seconds=1800. Repeatable.",
        show_default="tensor=4GiB, constants=512MiB, nodes=50000, depth=50, seconds=900",
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """Parse ``x=1,3,224,224``.

    Raises
    ------
    LayoutselError
        If a text has another form, or an input is named twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, separator, dims = text.rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.split(",")) if dims else ()
        except ValueError:
            separator = ""
        if not separator or not name or name in shapes:
            problem = "given twice" if name in shapes and separator else "not a shape"
            raise LayoutselError(
                f"--shape {text!r}: {problem}; expected NAME=DIMS once per input, "
                f"such as x=1,3,224,224"
            )
        shapes[name] = shape
    return shapes


def parse_seconds(text: str) -> float:
    """Parse ``20s``, ``1.5m`` or ``20``.

    Raises
    ------
    LayoutselError
        If the text has another form, or is below zero.
    """
    number, unit = text.strip(), "s"
    if number.endswith(("s", "m")):
        number, unit = number[:-1], number[-1]
    try:
        seconds = float(number) * {"s": 1, "m": 60}[unit]
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise LayoutselError(f"got time {text!r}; expected seconds or minutes, such as 20s or 2m")
    return seconds


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """Parse ``cpu,onednn``; None for None.

    Raises
    ------
    LayoutselError
        If a name is empty or repeated.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise LayoutselError(f"got names {text!r}; expected distinct names, separated by commas")
    return names
