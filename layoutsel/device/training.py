"""Training with PyTorch in a child process, with limits of time and memory."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from typing import Any

from layoutsel.core.closing import Closing
from layoutsel.device.outcome import Failure, FailureKind
from layoutsel.device.worker import Worker
from tvm_passes.errors import LayoutselError


class TrainingFailed(LayoutselError):
    """A training that cannot start, fails or takes too long."""


class TrainingProcess(Closing):
    """A child process that trains; the end of a ``with`` block ends it.

    Parameters
    ----------
    function
        ``module:function`` of the child, which alone imports PyTorch. It begins what a message asks
        for, goes on with that at None, and returns the next report; None at the end.
    threads
        Number of threads.
    limit_s
        Time limit of all that is asked of it, seconds.
    memory_bytes
        Memory limit, bytes.
    advice
        Advice to a user whose time limit was too short.

    Raises
    ------
    TrainingFailed
        If PyTorch is missing.
    """

    def __init__(
        self, function: str, *, threads: int, limit_s: float, memory_bytes: int, advice: str
    ) -> None:
        check_torch()
        self._limit_s, self._advice = limit_s, advice
        self._end_s = time.monotonic() + limit_s
        # A busy wait of idle OpenMP threads would take the time of other processes.
        environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        self._worker = Worker(
            function, time_limit_s=limit_s, memory_bytes=memory_bytes, environment=environment
        )

    def reports(self, message: Any) -> Iterator[Any]:
        """Yield all reports about what a message asks for; errors as :meth:`ask`."""
        while (report := self.ask(message)) is not None:
            yield report
            message = None

    def ask(self, message: Any) -> Any:
        """Send a message, and return the first report about it.

        Raises
        ------
        TrainingFailed
            If the training fails or takes too long.
        """
        reply = self._worker.call(message, limit_s=max(0.0, self._end_s - time.monotonic()))
        if not isinstance(reply, Failure):
            return reply.value
        if reply.kind is FailureKind.TIMEOUT:
            raise TrainingFailed(
                f"the training took more than {self._limit_s:g} s and was ended: {self._advice}"
            )
        raise TrainingFailed(f"the training failed: {reply.reason}")

    def close(self) -> None:
        """End the child process."""
        self._worker.close()


def check_torch() -> None:
    """Raise :class:`TrainingFailed` if PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise TrainingFailed(
            "training needs PyTorch, which is not installed: pip install 'layoutsel[train]'"
        )
