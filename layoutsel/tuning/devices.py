"""Devices that time schedules: a process on this machine, or servers of TVM's RPC tracker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from layoutsel.device.outcome import Failure
from layoutsel.device.worker import Reply, Worker

TRIAL_LIMIT_S = 60.0
"""Time limit of building and timing one schedule, seconds; a second is usual."""

Request = Mapping[str, Any]
"""One schedule: module, target, arguments and number of threads, as JSON data."""
Times = tuple[float, ...]
"""Times of one schedule, seconds; empty if it failed."""


class Device(Protocol):
    """Protocol for devices that time schedules; a context manager."""

    def __enter__(self) -> Device:
        """Prepare the device."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all processes that the device started."""
        ...

    def measure(self, requests: Sequence[Request]) -> Iterator[tuple[int, Times | Failure]]:
        """Yield index and outcome of each request, in order of completion."""
        ...


class LocalDevice:
    """Timing on this machine: a child process builds and times one schedule after the other.

    Building and timing never overlap.

    Parameters
    ----------
    threads
        Number of threads of the schedules.
    """

    def __init__(self, threads: int) -> None:
        count = str(threads)
        self._worker = Worker(
            "layoutsel.tuning.measure:measure_here",
            time_limit_s=TRIAL_LIMIT_S,
            environment={"OMP_NUM_THREADS": count, "TVM_NUM_THREADS": count},
        )

    def __enter__(self) -> LocalDevice:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker.close()

    def measure(self, requests: Sequence[Request]) -> Iterator[tuple[int, Times | Failure]]:
        """Yield index and outcome of each request, in order."""
        for index, request in enumerate(requests):
            answer = self._worker.call(request)
            yield index, answer.value if isinstance(answer, Reply) else answer
