"""Check and timing of a bundle's model on this machine; a child process calls them by name."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from layoutsel.device.compare import rel_l2_err
from layoutsel.device.manifest import Deployed
from layoutsel.device.model import Model
from layoutsel.device.outcome import Timing
from layoutsel.device.results import CheckResult, DeployedResult
from layoutsel.device.tensors import bytes_of, tensor_of
from layoutsel.device.virtual_machine import synchronise
from tvm_passes.devices import DeviceId

_WARM_UP_RUNS = 2
"""Untimed runs before the timed ones."""
_FEWEST, _MOST, _BUDGET_S = 5, 1000, 2.0
"""Minimum and maximum number of timed runs, and their time limit in seconds."""


@dataclass(frozen=True, kw_only=True)
class BundledModel:
    """A model in an unpacked bundle."""

    folder: Path
    """Folder of the unpacked bundle."""
    deployed: Deployed
    """Entry of the model in the manifest."""
    devices: tuple[str, ...]
    """Kinds of the devices that it needs, other than the host."""


def run_deployed(trial: BundledModel) -> DeployedResult:
    """Compare every output with the reference on the bundled sample, then time the model.

    Logits are compared too, if the model exposes as many as the reference.
    """
    model = Model(trial.folder / trial.deployed.file)
    inputs = [
        tensor_of((trial.folder / file).read_bytes(), signature.shape, signature.dtype)
        for signature, file in zip(model.inputs, trial.deployed.inputs, strict=True)
    ]
    model.run_all(*inputs)  # recorded; the checked run repeats it, as all later ones do
    results = model.run_all(*inputs)
    wanted = trial.deployed.checks
    if len(results) != len(wanted):
        wanted = wanted[: len(model.outputs)]
    checks = []
    for one, result in zip(wanted, results, strict=False):
        expected = (trial.folder / one.file).read_bytes()
        error = rel_l2_err(bytes_of(result), str(result.dtype), expected, one.dtype)
        checks.append(
            CheckResult(
                output=one.output,
                rel_l2_err=error if math.isfinite(error) else None,
                tolerance=one.tolerance,
                attainable=one.attainable,
                reference=trial.deployed.reference,
            )
        )

    devices = tuple(map(DeviceId.named, trial.devices))

    def run() -> float:
        start = time.perf_counter()
        model.run_all(*inputs)
        synchronise(devices)
        return 1e6 * (time.perf_counter() - start)

    return DeployedResult(timing=_timed(run), checks=tuple(checks))


def _timed(run: Callable[[], float]) -> Timing:
    for _ in range(_WARM_UP_RUNS):
        run()
    times_us: list[float] = []
    end = time.perf_counter() + _BUDGET_S
    while len(times_us) < _FEWEST or (len(times_us) < _MOST and time.perf_counter() < end):
        times_us.append(run())
    lower, median, upper = statistics.quantiles(times_us, n=4)
    return Timing(us=median, spread_us=(upper - lower) / 2, runs=len(times_us))
