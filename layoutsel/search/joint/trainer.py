"""Common weights of all networks of a search space, trained in a child process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layoutsel.core.closing import Closing
from layoutsel.device.training import TrainingFailed, TrainingProcess
from layoutsel.search.joint.tasks import (
    Evaluation,
    Pass,
    Retrained,
    Retraining,
    SharedTraining,
)
from layoutsel.search.space import Architecture

FUNCTION = "layoutsel.search.joint.session:answer"
"""Function of the child process; only that imports PyTorch."""
MEMORY_BYTES = 8 << 30
"""Memory limit of the child process."""
TIME_LIMIT_S = 3600.0
"""Time limit of all trainings and evaluations of a search, seconds."""

Progress = Callable[[Pass], None]
"""Function that receives a report about each pass over the data."""


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
        self._task = task
        self._process = TrainingProcess(
            FUNCTION,
            threads=task.threads,
            limit_s=limit_s,
            memory_bytes=MEMORY_BYTES,
            advice="allow more time; the same command goes on from here",
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
        for report in self._process.reports(self._task):
            if isinstance(report, Pass):
                progress(report)

    def accuracies(self, architectures: Sequence[Architecture]) -> tuple[float, ...]:
        """Validation accuracies of networks with the common weights; errors as :meth:`train`."""
        self._begin()
        found = self._process.ask(Evaluation(architectures=tuple(architectures)))
        assert isinstance(found, tuple)
        return found

    def retrained(self, task: Retraining, progress: Progress) -> Retrained:
        """Train one network from its common weights; errors as :meth:`train`."""
        self._begin()
        for report in self._process.reports(task):
            if isinstance(report, Retrained):
                return report
            assert isinstance(report, Pass)
            progress(report)
        raise TrainingFailed(f"the training of {task.name} ended without a network")

    def close(self) -> None:
        """End the child process."""
        self._process.close()

    def _begin(self) -> None:
        if not self._is_begun:
            self.train(lambda _report: None)
