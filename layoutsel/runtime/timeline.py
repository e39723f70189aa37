"""Execution times of kernels from device timestamps, on :func:`time.perf_counter_ns`'s clock."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator

import tvm_ffi

from layoutsel.device.artifact_header import devices_of
from layoutsel.runtime.traceable import Traceable
from tvm_passes.devices import CPU

_RECORD, _RECORDED = "layoutsel.opencl.record", "layoutsel.opencl.recorded"
"""Functions of the plugin that switch recording and return the records."""
_TELLS = frozenset({CPU, "opencl"})
"""Kinds of devices whose runtime reports timestamps."""
_KERNEL = "_kernel"
"""Suffix of TVM's kernel names, after the function's name and before a number."""


def tells_all(model: Traceable) -> bool:
    """True if host and devices overlap in `model`, and all devices report timestamps."""
    is_parallel = model.plan.get("makespan") is not None
    known = tvm_ffi.get_global_func(_RECORD, allow_missing=True) is not None
    kinds = {device.kind for device in devices_of(model.header)}
    return is_parallel and known and kinds <= _TELLS


class Recorded:
    """Recorded kernels with their times, in launch order."""

    def __init__(self) -> None:
        self._left: deque[tuple[str, int, int]] = deque()

    def read(self) -> None:
        """Wait for the kernels and read their records."""
        found = tvm_ffi.get_global_func(_RECORDED)()
        self._left.extend((str(name), int(start), int(end)) for name, start, end in found)

    def take(self, function: str) -> tuple[int, int] | None:
        """Remove and return start and end of the next launches of `function`, nanoseconds.

        Earlier launches are of other models and are dropped. None if there is no launch.
        """
        taken: list[tuple[int, int]] = []
        if any(_is_kernel_of(kernel, function, is_first=True) for kernel, _, _ in self._left):
            while not _is_kernel_of(self._left[0][0], function, is_first=True):
                self._left.popleft()
        while self._left and _is_kernel_of(self._left[0][0], function, is_first=not taken):
            taken.append(self._left.popleft()[1:])
        return (taken[0][0], taken[-1][1]) if taken else None


def _is_kernel_of(kernel: str, function: str, *, is_first: bool) -> bool:
    """True for a kernel of `function`; only the first kernel of a call has no number."""
    name, _, number = kernel.rpartition(_KERNEL)
    return name == function and is_first == (number == "")


@contextlib.contextmanager
def recording(*, is_on: bool) -> Iterator[Recorded]:
    """Record the kernels that are launched within the block, if `is_on`."""
    recorded = Recorded()
    if not is_on:
        yield recorded
        return
    record = tvm_ffi.get_global_func(_RECORD)
    record(True)
    try:
        yield recorded
        recorded.read()
    finally:
        record(False)
