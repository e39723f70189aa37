"""Search for the nodes that are the cause of overdue runs and transfers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from layoutsel.cluster.attempt import Attempt, SegmentTask
from layoutsel.cluster.health import Health
from layoutsel.cluster.node_queues import NodeQueues


class OverdueWork:
    """Examines the nodes of overdue work, and loses those that are silent or avoidable.

    Parameters
    ----------
    health
        Examines nodes.
    queues
        Queues of the overdue runs.
    origin
        Node that holds the inputs and takes the results.
    has_way_around
        True if requests can be answered without some nodes.
    lose
        Puts nodes into quarantine, for a reason.
    """

    def __init__(
        self,
        health: Health,
        queues: NodeQueues,
        origin: str,
        *,
        has_way_around: Callable[[Iterable[str]], bool],
        lose: Callable[[frozenset[str], str], None],
    ) -> None:
        self._health, self._queues, self._origin = health, queues, origin
        self._has_way_around, self._lose = has_way_around, lose

    def run(self, task: SegmentTask) -> None:
        """Examine the node of an overdue run, and the nodes that its inputs come from.

        The run gets more time if all of them answer and no route avoids its node.
        """
        node = task.segment.node
        sources = task.attempt.received(task.segment.inputs, node, self._origin)
        done = partial(self._examined, task)
        if not self._health.examine({node, *sources} - {self._origin} | {node}, done):
            self._queues.extend(task)

    def outputs(self, attempt: Attempt, names: Iterable[str]) -> None:
        """Examine the nodes of outputs that did not arrive in time."""
        sources = frozenset(attempt.received(names, self._origin, self._origin))

        def examined(silent: frozenset[str]) -> None:
            if attempt.is_current and (silent or self._has_way_around(sources)):
                self._lose(silent or sources, "the outputs of the model did not arrive in time")

        self._health.examine(sources, examined)

    def _examined(self, task: SegmentTask, silent: frozenset[str]) -> None:
        """Replay around silent nodes, or else around the slow node of the run."""
        node = task.segment.node
        if not task.attempt.is_current or task not in task.attempt.tasks:
            return
        why = f"segment {task.segment.id!r} did not end within {1e3 * task.patience_s:.0f} ms"
        if silent:
            self._lose(silent, f"{why}, and it does not answer")
        elif self._has_way_around({node}):
            self._lose(frozenset({node}), f"{why}: it is slow")
        else:
            self._queues.extend(task)  # slow is better than nothing
