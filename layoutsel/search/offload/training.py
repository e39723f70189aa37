"""Child process that trains supernets and sliced networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from layoutsel.core.closing import Closing
from layoutsel.device.training import TrainingProcess
from layoutsel.search.offload.settings import (
    RetrainedNetwork,
    RetrainTask,
    SearchReport,
    SelectorState,
    SupernetTask,
)

FUNCTION = "layoutsel.search.offload.session:answer"
"""Function of the child process; only that imports PyTorch."""
MEMORY_BYTES = 6 << 30
"""Memory limit of the child process."""
TIME_LIMIT_S = 3600.0
"""Default time limit of all trainings of a search, seconds."""
OnReport = Callable[[SearchReport], None]
"""Function that receives a report about each pass over the data."""


class Training(Closing):
    """A child process that trains; a context manager whose end ends the process.

    Parameters
    ----------
    threads
        Number of threads.
    limit_s
        Time limit of all that is asked of it, seconds.

    Raises
    ------
    TrainingFailed
        If PyTorch is missing.
    """

    def __init__(self, threads: int, limit_s: float = TIME_LIMIT_S) -> None:
        self._process = TrainingProcess(
            FUNCTION,
            threads=threads,
            limit_s=limit_s,
            memory_bytes=MEMORY_BYTES,
            advice="the same command with more time goes on with it",
        )

    def close(self) -> None:
        """End the child process."""
        self._process.close()

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
        for report in self._process.reports(task):
            if isinstance(report, SearchReport):
                on_report(report)
            else:
                yield report
