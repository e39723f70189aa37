"""Common weights of all networks of a search space, trained in a child process."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence

from layoutsel.core.closing import Closing
from layoutsel.device.outcome import Failure, FailureKind
from layoutsel.device.worker import Worker
from layoutsel.search.joint.tasks import (
    Answer,
    Evaluation,
    Message,
    Pass,
    Retrained,
    Retraining,
    SharedTraining,
)
from layoutsel.search.space import Architecture
from tvm_passes.errors import LayoutselError

FUNCTION = "layoutsel.search.joint.session:answer"
"""Function of the child process; only that imports PyTorch."""
MEMORY_BYTES = 8 << 30
"""Memory limit of the child process."""
TIME_LIMIT_S = 3600.0
"""Time limit of all trainings and evaluations of a search, seconds."""

Progress = Callable[[Pass], None]
"""Function that receives a report about each pass over the data."""


class TrainingFailed(LayoutselError):
    """A training that cannot start, fails or takes too long."""


class JointTrainer(Closing):
    """Trains common weights, evaluates networks with them, and trains single networks.

    The end of a ``with`` block ends the child process.

    Parameters
    ----------
    task
        Space and settings.
    limit_s
        Time limit of all that is asked of it, seconds.

    Raises
    ------
    TrainingFailed
        If PyTorch is missing.
    """

    def __init__(self, task: SharedTraining, *, limit_s: float = TIME_LIMIT_S) -> None:
        check_torch()
        self._task, self._limit_s = task, limit_s
        self._end = time.monotonic() + limit_s
        # A busy wait of idle OpenMP threads would take the time of other processes.
        environment = {"OMP_NUM_THREADS": str(task.threads), "OMP_WAIT_POLICY": "passive"}
        self._worker = Worker(
            FUNCTION, time_limit_s=limit_s, memory_bytes=MEMORY_BYTES, environment=environment
        )
        self._is_begun = False

    def train(self, progress: Progress) -> None:
        """Train the common weights, from where an earlier search ended.

        Raises
        ------
        TrainingFailed
            If it fails or takes too long.
        """
        self._is_begun = True
        for report in self._reports(self._task):
            if isinstance(report, Pass):
                progress(report)

    def accuracies(self, architectures: Sequence[Architecture]) -> tuple[float, ...]:
        """Validation accuracies of networks with the common weights; errors as :meth:`train`."""
        self._begin()
        found = self._ask(Evaluation(architectures=tuple(architectures)))
        assert isinstance(found, tuple)
        return found

    def retrained(self, task: Retraining, progress: Progress) -> Retrained:
        """Train one network from its common weights; errors as :meth:`train`."""
        self._begin()
        for report in self._reports(task):
            if isinstance(report, Retrained):
                return report
            assert isinstance(report, Pass)
            progress(report)
        raise TrainingFailed(f"the training of {task.name} ended without a network")

    def close(self) -> None:
        """End the child process."""
        self._worker.close()

    def _begin(self) -> None:
        if not self._is_begun:
            self.train(lambda _report: None)

    def _reports(self, message: Message) -> Iterator[Answer]:
        while (reply := self._ask(message)) is not None:
            yield reply
            message = None

    def _ask(self, message: Message) -> Answer:
        reply = self._worker.call(message, limit_s=max(0.0, self._end - time.monotonic()))
        if not isinstance(reply, Failure):
            found: Answer = reply.value
            return found
        if reply.kind is FailureKind.TIMEOUT:
            raise TrainingFailed(
                f"the trainings took more than {self._limit_s:g} s and were ended: allow more "
                "time; the same command goes on from here"
            )
        raise TrainingFailed(f"the training failed: {reply.reason}")


def check_torch() -> None:
    """Raise :class:`TrainingFailed` if PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise TrainingFailed(
            "training needs PyTorch, which is not installed: pip install 'layoutsel[train]'"
        )
