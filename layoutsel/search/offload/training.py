"""Child process that trains supernets and sliced networks."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator

from layoutsel.device.outcome import Failure, FailureKind
from layoutsel.device.worker import Worker
from layoutsel.search.offload.settings import (
    RetrainedNetwork,
    RetrainTask,
    SearchReport,
    SelectorState,
    SupernetTask,
)
from tvm_passes.errors import LayoutselError

FUNCTION = "layoutsel.search.offload.session:answer"
"""Function of the child process; only that imports PyTorch."""
MEMORY_BYTES = 6 << 30
"""Memory limit of the child process."""
TIME_LIMIT_S = 3600.0
"""Default time limit of all trainings of a search, seconds."""
OnReport = Callable[[SearchReport], None]
"""Function that receives a report about each pass over the data."""


class OffloadError(LayoutselError):
    """A training that cannot start, fails or takes too long."""


class Training:
    """A child process that trains; a context manager whose end ends the process.

    Parameters
    ----------
    threads
        Number of threads.
    limit_s
        Time limit of all that is asked of it, seconds.

    Raises
    ------
    OffloadError
        If PyTorch is missing.
    """

    def __init__(self, threads: int, limit_s: float = TIME_LIMIT_S) -> None:
        if importlib.util.find_spec("torch") is None:
            raise OffloadError(
                "training needs PyTorch, which is not installed: pip install 'layoutsel[train]'"
            )
        self._limit_s, self._end = limit_s, time.monotonic() + limit_s
        # A busy wait of idle OpenMP threads would take the time of other processes.
        environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        self._worker = Worker(
            FUNCTION, time_limit_s=limit_s, memory_bytes=MEMORY_BYTES, environment=environment
        )

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_error: object) -> None:
        self._worker.close()

    def supernet(self, task: SupernetTask, on_report: OnReport) -> Iterator[SelectorState]:
        """Train a supernet, and yield its selectors after each phase."""
        for one in self._messages(task, on_report):
            assert isinstance(one, SelectorState)
            yield one

    def network(self, task: RetrainTask, on_report: OnReport) -> RetrainedNetwork:
        """Train a sliced network."""
        (found,) = self._messages(task, on_report)
        assert isinstance(found, RetrainedNetwork)
        return found

    def _messages(
        self, task: SupernetTask | RetrainTask, on_report: OnReport
    ) -> Iterator[SelectorState | RetrainedNetwork]:
        payload: SupernetTask | RetrainTask | None = task
        while True:
            reply = self._worker.call(payload, limit_s=max(0.0, self._end - time.monotonic()))
            if isinstance(reply, Failure):
                raise _error(reply, self._limit_s)
            if reply.value is None:
                return
            payload = None
            if isinstance(reply.value, SearchReport):
                on_report(reply.value)
            else:
                yield reply.value


def _error(failure: Failure, limit_s: float) -> OffloadError:
    if failure.kind is FailureKind.TIMEOUT:
        return OffloadError(
            f"the trainings took more than {limit_s:g} s and were ended: the same command with "
            "more time goes on with them"
        )
    return OffloadError(f"the training failed: {failure.reason}")
