"""``layoutsel run``: run a compiled model."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.core.files import check_output, make_folder, replacing
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    import numpy as np

    from layoutsel.runtime.compiled import CompiledModel


def run(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.so", help="File that `layoutsel compile` wrote.", show_default=False
        ),
    ],
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=FILE.npy",
            help="Input of the model. Repeatable; other inputs are random.",
            show_default=False,
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            metavar="DIR",
            help="Folder for the outputs, one <name>.npy each.",
            show_default=False,
        ),
    ] = None,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, metavar="N", help="Number of timed runs.")
    ] = 10,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Chrome trace to write (chrome://tracing, ui.perfetto.dev), of one more run.",
            show_default=False,
        ),
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(
            "--fallback",
            metavar="cpu",
            help="Reject a model that needs a device and was compiled without --fallback.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a compiled model on given or random inputs, and time it."""
    check_output(trace)
    given = _read_inputs(input_ or ())
    if output_dir is not None:
        make_folder(output_dir)
    from layoutsel.report.plan_tables import check_lines
    from layoutsel.runtime.loading import load
    from layoutsel.runtime.samples import random_inputs

    start = time.perf_counter()
    compiled = load(model, fallback=fallback)
    load_s = time.perf_counter() - start
    names = [signature.name for signature in compiled.inputs]
    randoms = dict(zip(names, random_inputs(compiled.inputs), strict=True))
    inputs = compiled.bind(**{**randoms, **given})
    with terminal.quiet_allocator(with_devices=compiled.uses_devices):
        results = compiled.run_all(inputs)[: len(compiled.outputs)]
    compiled = compiled.running
    for signature, result in zip(compiled.outputs, results, strict=True):
        terminal.show_text(f"{signature.name}: {result.dtype} {_shape(result)}{_range(result)}")
    if output_dir is not None:
        _write_outputs(compiled, results, output_dir)
    for line in check_lines(compiled.checks):
        terminal.show_text(line)
    terminal.show_text(f"loaded in {load_s:.2f} s; {_timing(compiled, inputs, repeat)}")
    if trace is not None:
        from layoutsel.runtime.chrome_trace import write_trace

        write_trace(compiled, inputs, trace)
        terminal.show_text(f"trace written to {trace}")


def _read_inputs(texts: Sequence[str]) -> dict[str, np.ndarray]:
    import numpy as np

    found: dict[str, np.ndarray] = {}
    for text in texts:
        name, separator, file = text.partition("=")
        if not separator or not name or not file or name in found:
            raise LayoutselError(f"--input {text!r}: expected NAME=FILE.npy, each input once")
        try:
            value = np.load(file, allow_pickle=False)
        except OSError as error:
            raise LayoutselError(f"--input {name}: cannot read {file}: {error.strerror}") from error
        except (ValueError, EOFError) as error:
            raise LayoutselError(f"--input {name}: {file} is not an .npy file: {error}") from error
        if not isinstance(value, np.ndarray):
            raise LayoutselError(f"--input {name}: got an archive {file}; expected an .npy file")
        found[name] = value
    return found


def _write_outputs(compiled: CompiledModel, results: Sequence[np.ndarray], folder: Path) -> None:
    import numpy as np

    for signature, result in zip(compiled.outputs, results, strict=True):
        path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', signature.name)}.npy"
        with replacing(path) as file:
            np.save(file, result)
        terminal.show_text(f"written {path}")


def _shape(array: np.ndarray) -> str:
    return "×".join(map(str, array.shape)) or "scalar"


def _range(array: np.ndarray) -> str:
    if not array.size:
        return ", empty"
    return f", {float(array.min()):.4g} to {float(array.max()):.4g}, mean {float(array.mean()):.4g}"


def _timing(compiled: CompiledModel, inputs: Sequence[np.ndarray], repeat: int) -> str:
    import numpy as np

    call = compiled.timed_call(inputs)
    call()
    times_ms = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times_ms.append(1e3 * (time.perf_counter() - start))
    low, median, high = np.percentile(times_ms, [10, 50, 90])
    return (
        f"{repeat} runs on {compiled.threads} threads: median {median:.3f} ms "
        f"(10 % under {low:.3f}, 10 % over {high:.3f})"
    )
