"""Measure a bundle's candidates, or check and time its model; `serve` runs a model's stages."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from layoutsel.core.exit_codes import INTERNAL_ERROR, INTERRUPTED, USER_ERROR, place_error
from layoutsel.core.files import check_output
from layoutsel.device import archive, requirements
from layoutsel.device.checks import conceded, concessions, require
from layoutsel.device.measure import Progress, measure_bundle
from layoutsel.device.outcome import Timing
from layoutsel.device.results import DeployedResult
from tvm_passes.errors import LayoutselError

_NAME = "layoutsel-measure"
_SERVE = "serve"
"""First argument of the command that serves a model."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``layoutsel-measure``; returns 0, or 2 (user error), 130 (Ctrl-C) or 1 (bug)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == [_SERVE]:
        serving = _serve_parser().parse_args(words[1:])
        return _guarded(lambda: _serve(serving), "")
    options = _parser().parse_args(words)
    return _guarded(
        lambda: _measure(options.bundle, options.output, options.time_limit),
        f"; partial results are in {options.output}, the same command continues",
        options.output,
    )


def _guarded(work: Callable[[], None], kept: str, output: Path | None = None) -> int:
    """Run a command; returns its exit code.

    `kept` ends the message of an interrupted command that has written its `output`.
    """
    try:
        work()
        sys.stdout.flush()
    except LayoutselError as error:
        _say(f"error: {error}")
        return USER_ERROR
    except KeyboardInterrupt:
        _say(f"interrupted{kept if output and output.exists() else ''}")
        return INTERRUPTED
    except OSError as error:
        told = place_error(error)
        _say(f"error: {told or f'unexpected {error}'}")
        _drop_output()
        return USER_ERROR if told else INTERNAL_ERROR
    except Exception as error:
        _say(f"error: unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return INTERNAL_ERROR
    return 0


def _drop_output() -> None:
    """Redirect standard output to nowhere, as the interpreter flushes the rest again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_NAME, description=__doc__)
    parser.add_argument("bundle", type=Path, help="file that `layoutsel bundle` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="results.json")
    parser.add_argument(
        "--time-limit",
        type=_positive,
        default=60.0,
        metavar="S",
        help="time limit of one candidate, seconds (default: 60)",
    )
    return parser


def _serve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_NAME} {_SERVE}", description="Run stages of a model for a gateway, until Ctrl-C."
    )
    parser.add_argument("model", type=Path, help="artifact, or bundle that deploys a model")
    parser.add_argument(
        "--rpc",
        type=_port,
        required=True,
        metavar="PORT",
        help="port of TVM's RPC on the loopback interface; 0 for a free one",
    )
    parser.add_argument("--threads", type=int, default=1, help="number of threads (default: 1)")
    parser.add_argument(
        "--time-limit",
        type=_positive,
        default=60.0,
        metavar="S",
        help="time limit of one run, seconds (default: 60)",
    )
    return parser


def _serve(options: argparse.Namespace) -> None:
    from layoutsel.device.rpc_server import LOOPBACK, SegmentServer  # the help needs no tvm_ffi

    server = SegmentServer(
        options.model, options.rpc, threads=options.threads, limit_s=options.time_limit
    )
    print(f"serving {options.model} on {LOOPBACK}:{server.port}", flush=True)
    try:
        server.serve(_say)
    finally:
        server.close()


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"got {text}; expected a port from 0 to 65535")
    return number


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"got {text}; expected seconds above 0")
    return seconds


def _measure(path: Path, output: Path, time_limit_s: float) -> None:
    check_output(output)
    with archive.opened(path) as bundle:
        requirements.check(str(path), bundle.manifest.requires)
        results = measure_bundle(bundle, output, time_limit_s, _report)
    timings = [
        *(one.timing for one in results.candidates),
        *(one.timing for one in results.boundaries),
    ]
    if timings:
        failed = timings.count(None)
        print(f"{len(timings) - failed} measurements and {failed} failures written to {output}")
    if results.deployed is not None:
        _show(results.deployed, output)


def _show(deployed: DeployedResult, output: Path) -> None:
    """Print checks and time of a deployed model.

    Raises
    ------
    VerificationError
        If its results are wrong.
    """
    checks = [one.check for one in deployed.checks]
    for warning in concessions(checks):
        _say(f"warning: {warning}")
    require(conceded(checks), ". Report it")
    for one in checks:
        print(
            f"verified {one.output!r} against {one.reference}: "
            f"relative L2 error {one.rel_l2_err:.1e}"
        )
    timing = deployed.timing
    print(
        f"{timing.us / 1e3:.3f} ± {timing.spread_us / 1e3:.3f} ms, "
        f"median of {timing.runs} runs, written to {output}"
    )


def _report(progress: Progress) -> None:
    outcome = progress.outcome
    what = (
        f"{outcome.us:.1f} ± {outcome.spread_us:.1f} µs"
        if isinstance(outcome, Timing)
        else f"failed: {outcome.reason}"
    )
    _say(f"{progress.done} of {progress.total}: {progress.label}: {what}")


def _say(text: str) -> None:
    print(f"{_NAME}: {text}", file=sys.stderr, flush=True)
