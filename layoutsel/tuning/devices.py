"""Where schedules are timed: in a process here, or on the servers of TVM's RPC tracker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from layoutsel.device.outcome import Failure
from layoutsel.device.worker import Reply, Worker

TRIAL_LIMIT_S = 60.0
"""Building and timing a schedule takes a second; what takes longer hangs."""

Request = Mapping[str, Any]
Times = tuple[float, ...]


class Device(Protocol):
    """Times schedules. A context manager."""

    def __enter__(self) -> Device:
        """Get ready."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every process that was started."""
        ...

    def measure(self, requests: Sequence[Request]) -> Iterator[tuple[int, Times | Failure]]:
        """The outcome of each request, by its index, as they come."""
        ...


class LocalDevice:
    """The machine itself: one schedule after the other, in one child process. Building never runs beside timing."""

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
        """The outcome of each request, in order."""
        for index, request in enumerate(requests):
            answer = self._worker.call(request)
            yield index, answer.value if isinstance(answer, Reply) else answer
