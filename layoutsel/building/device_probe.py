"""Measuring of a device's peaks with small TVM kernels, in a separate process."""

from __future__ import annotations

import functools
import json
import operator
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm.tirx.script import builder as T

from layoutsel import documents
from layoutsel.cost.device_peaks import DevicePeaks
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import emit, host_target
from tvm_passes.decision import parse_placed_unit
from tvm_passes.devices import DeviceId
from tvm_passes.errors import LayoutselError
from tvm_passes.gpu.target import device_target

_CHAINS, _DEPTH = 8, 256
"""Number and length of the independent chains of dependent multiply-adds in each work item."""
_RESULTS = 1 << 20
"""Number of work items of the multiply-add kernel: enough for any device."""
_GROUP = 256
"""Number of work items in a group."""
LARGE_BYTES = 64 << 20
"""Size of an array that exceeds any device's cache."""
_BUDGET_S = 0.3
"""Time budget of each measurement, seconds."""
_LAUNCHES = 200
"""Number of consecutive kernel launches."""
_CLOCK, _COMPUTE_UNITS = "max_clock_rate", "multi_processor_count"
"""Names of TVM's attributes of devices."""


def measure(where: str) -> DevicePeaks:
    """Measure the peaks of the device of a placed unit; takes a few seconds.

    Raises
    ------
    LayoutselError
        If the device is unavailable.
    """
    unit, place = parse_placed_unit(where)
    backend = BACKENDS[unit]
    if reason := backend.unavailable():
        raise LayoutselError(f"cannot measure the device of {where!r}: {reason}")
    device = tvm.device(place.kind, place.index)
    launch_us = seconds(_kernel(place, 1, lambda x: x + 1.0), _LAUNCHES) * 1e6
    items = LARGE_BYTES // 4
    moved_s = seconds(_kernel(place, items, lambda x: x + 1.0), 1)
    computed_s = seconds(_kernel(place, _RESULTS, _multiply_adds), 1)
    return DevicePeaks(
        name=backend.identity(place.index),
        compute_units=int(getattr(device, _COMPUTE_UNITS)),
        clock_mhz=float(getattr(device, _CLOCK)) / 1e3,
        gflops=2 * _CHAINS * _DEPTH * _RESULTS / computed_s / 1e9,
        memory_gbps=2 * LARGE_BYTES / moved_s / 1e9,
        launch_us=launch_us,
    )


def _multiply_adds(x: Any) -> Any:
    """Generate chains of dependent multiply-adds whose operands stay in registers."""
    sums = [T.alloc_buffer((1,), "float32", scope="local") for _ in range(_CHAINS)]
    for each in sums:
        emit.store(each, x, 0, 1)
    with emit.serial(_DEPTH):
        for each in sums:
            emit.store(each, emit.load(each, 0) * x + x, 0, 1)
    return functools.reduce(operator.add, (emit.load(each, 0) for each in sums))


def _kernel(place: DeviceId, items: int, body: Callable[[Any], Any]) -> Callable[[int], None]:
    """Build an element-wise kernel over `items` f32 elements.

    The result runs it a given number of times and waits for the last run.
    """
    target = device_target(place.target_kind, host_target(), place.index)
    device = tvm.device(place.kind, place.index)
    group = min(items, _GROUP)

    def code(buffers: list[emit.Buffer]) -> None:
        source, result = buffers
        with (
            T.thread_binding(0, items // group, "blockIdx.x") as block,
            T.thread_binding(0, group, "threadIdx.x") as item,
        ):
            index = emit.bind(block * group + item)
            emit.store(result, body(emit.bind(emit.load(source, index))), index, 1)

    function = emit.prim_func([((items,), "float32")] * 2, code).with_attr("global_symbol", "probe")
    run = tvm.compile(tvm.IRModule({"probe": function}), target)["probe"]
    arrays = [tvm.runtime.tensor(np.full(items, 0.5, np.float32), device) for _ in range(2)]

    def repeated(times: int) -> None:
        for _ in range(times):
            run(*arrays)
        device.sync()

    return repeated


def seconds(run: Callable[[int], None], times: int) -> float:
    """Measure the time of one of `times` consecutive runs, seconds.

    The result is the lower quartile of several rounds: disturbances only ever add time.
    """
    run(1)
    seconds: list[float] = []
    end = time.perf_counter() + _BUDGET_S
    while len(seconds) < 4 or time.perf_counter() < end:
        start = time.perf_counter()
        run(times)
        seconds.append((time.perf_counter() - start) / times)
    return statistics.quantiles(seconds, n=4)[0]


def report(where: str) -> None:
    """Print the peaks of a placed unit's device as JSON, the last output of a child process."""
    print(json.dumps(documents.to_json(measure(where))))
