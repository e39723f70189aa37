"""When kernels ran on devices, as the devices tell, by the clock of :func:`time.perf_counter_ns`."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator

import tvm_ffi

from layoutsel.device.artifact_header import devices_of
from layoutsel.runtime.traceable import Traceable
from tvm_passes.devices import CPU

_RECORD, _RECORDED = "layoutsel.opencl.record", "layoutsel.opencl.recorded"
_TELLS = frozenset({CPU, "opencl"})
"""Kinds of devices whose run time tells when kernels ran."""
_KERNEL = "_kernel"
"""What TVM calls the kernels of a function: its name with this, and a number."""


def tells_all(model: Traceable) -> bool:
    """True if `model` lets devices work while the host does, and all of them tell when they did."""
    is_parallel = model.plan.get("makespan") is not None
    known = tvm_ffi.get_global_func(_RECORD, allow_missing=True) is not None
    kinds = {device.kind for device in devices_of(model.header)}
    return is_parallel and known and kinds <= _TELLS


class Recorded:
    """Kernels with their times, in the order in which they were launched."""

    def __init__(self) -> None:
        self._left: deque[tuple[str, int, int]] = deque()

    def read(self) -> None:
        """Take what has run; waits for it."""
        found = tvm_ffi.get_global_func(_RECORDED)()
        self._left.extend((str(name), int(start), int(end)) for name, start, end in found)

    def take(self, function: str) -> tuple[int, int] | None:
        """Start and end of the next launches of `function`; those before, of other models, are passed over."""
        taken: list[tuple[int, int]] = []
        if any(_is_kernel_of(kernel, function, is_first=True) for kernel, _, _ in self._left):
            while not _is_kernel_of(self._left[0][0], function, is_first=True):
                self._left.popleft()
        while self._left and _is_kernel_of(self._left[0][0], function, is_first=not taken):
            taken.append(self._left.popleft()[1:])
        return (taken[0][0], taken[-1][1]) if taken else None


def _is_kernel_of(kernel: str, function: str, *, is_first: bool) -> bool:
    """The first of a function's kernels has no number: where it comes again, that is another call."""
    name, _, number = kernel.rpartition(_KERNEL)
    return name == function and is_first == (number == "")


@contextlib.contextmanager
def recording(*, is_on: bool) -> Iterator[Recorded]:
    """Record the kernels that are launched within, if `is_on`."""
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
