"""Building and timing of one schedule; a child process calls it by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm.target import Target

from layoutsel.device.threads import set_threads
from tvm_passes.cpu import KERNEL_PIPELINE
from tvm_passes.devices import DeviceId

REPEATS = 3
"""Number of measured times of each schedule."""
REPEAT_MS = 30
"""Minimum duration of one measured time, over several runs, milliseconds."""


def build(request: Mapping[str, Any]) -> Any:
    """Compile the module of `request` for its target; a device's target includes its host."""
    target = Target(request["target"])
    pipeline = KERNEL_PIPELINE if _device(target) == tvm.cpu() else None
    return tvm.compile(tvm.ir.load_json(request["module"]), target, tir_pipeline=pipeline)


def measure_here(request: Mapping[str, Any]) -> tuple[float, ...]:
    """Build and time a schedule; returns seconds of a run, each the mean of several."""
    set_threads(int(request["threads"]))
    device = _device(Target(request["target"]))
    code = build(request).jit()
    arguments = [_argument(shape, dtype, device) for _, dtype, shape in request["arguments"]]
    evaluator = code.time_evaluator(
        "main", device, number=1, repeat=REPEATS, min_repeat_ms=REPEAT_MS
    )
    return tuple(float(second) for second in evaluator(*arguments).results)


def _device(target: Target) -> tvm.runtime.Device:
    """Return the first device of the target's kind."""
    return tvm.device(DeviceId.of_target(target.kind.name).kind)


def _argument(shape: list[int], dtype: str, device: tvm.runtime.Device) -> tvm.runtime.Tensor:
    generator = np.random.default_rng(0)
    if dtype.startswith("float"):
        return tvm.runtime.tensor((0.1 * generator.standard_normal(shape)).astype(dtype), device)
    return tvm.runtime.tensor(generator.integers(0, 2, shape).astype(dtype), device)
