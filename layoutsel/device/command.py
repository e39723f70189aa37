"""Measure the candidates of a bundle, or check and time the model that it deploys."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``layoutsel-measure``; returns 0, or 2 (user error), 130 (Ctrl-C) or 1 (bug)."""
    options = _parser().parse_args(arguments)
    try:
        _measure(options.bundle, options.output, options.time_limit)
        sys.stdout.flush()
    except LayoutselError as error:
        _say(f"error: {error}")
        return USER_ERROR
    except KeyboardInterrupt:
        kept = f"; partial results are in {options.output}, the same command continues"
        _say(f"interrupted{kept if options.output.exists() else ''}")
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
