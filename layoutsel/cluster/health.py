"""Quarantine of nodes that were lost, slow or flapping, and their return."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from layoutsel.cluster.event_loop import EventLoop

logger = logging.getLogger(__name__)

FIRST_S, LONGEST_S = 1.0, 60.0
"""First and longest quarantine, seconds; each relapse doubles it."""
REVIVE_S, EXAMINE_S = 5.0, 0.4
"""Time limits of the checks of a node that may have returned, and of one that may be lost."""
_LOOK_S = 0.005
"""Time between two looks at an examination, seconds."""
_GOOD = 10.0
"""Multiple of the last quarantine after which a node without a fault is trusted again."""
_HURRY_S = 0.2
"""Time between two checks of a node while requests wait for any node, seconds."""


@dataclass(kw_only=True)
class _Record:
    """History of a node's faults."""

    until_s: float
    """End of the last quarantine, seconds of the monotonic clock."""
    length_s: float
    """Length of the last quarantine, seconds."""


Revive = Callable[[str, float], None]
"""Checks a node within a limit in seconds and prepares it for work; raises on failure."""


class Health:
    """Nodes without work. All methods run on the thread of the event loop.

    Parameters
    ----------
    loop
        Loop of the controller.
    revive
        Checks a node on another thread, where it may wait.
    returned
        Called when a node gets work again.
    is_urgent
        True while requests wait for any node; lost nodes are then checked often.
    """

    def __init__(
        self,
        loop: EventLoop,
        revive: Revive,
        *,
        returned: Callable[[], None],
        is_urgent: Callable[[], bool],
    ) -> None:
        self._loop, self._revive = loop, revive
        self._returned, self._is_urgent = returned, is_urgent
        self._records: dict[str, _Record] = {}
        self._checked: set[str] = set()
        self._is_examining = False
        # Examinations are urgent, and checks of lost nodes last long.
        self._helpers = ThreadPoolExecutor(4, thread_name_prefix="layoutsel-revive")
        self._examiners = ThreadPoolExecutor(8, thread_name_prefix="layoutsel-examine")
        self.lost: frozenset[str] = frozenset()
        """Nodes without work."""

    def lose(self, node: str, why: str) -> bool:
        """Put a node into quarantine; False if it is there already."""
        if node in self.lost:
            return False
        self.lost |= {node}
        length_s = self._extend(node)
        logger.warning("node %r gets no work for %g s: %s", node, length_s, why)
        return True

    def examine(self, nodes: Collection[str], done: Callable[[frozenset[str]], None]) -> bool:
        """Find out which nodes do not answer; False if another examination is in progress.

        Parameters
        ----------
        nodes
            Nodes that may be lost.
        done
            Called with the silent ones.
        """
        if self._is_examining:
            return False
        self._is_examining = True
        answers = {node: self._examiners.submit(self._revive, node, EXAMINE_S) for node in nodes}
        end_s = time.monotonic() + 1.25 * EXAMINE_S

        def look() -> None:
            if not all(one.done() for one in answers.values()) and time.monotonic() < end_s:
                self._loop.at(time.monotonic() + _LOOK_S, look)
                return
            self._is_examining = False
            done(frozenset(node for node, one in answers.items() if _is_silent(one)))

        look()
        return True

    def check_all(self) -> None:
        """Check all nodes at once, as no other is left."""
        for node in self.lost:
            self._check(node)

    def close(self) -> None:
        """End the threads."""
        for pool in (self._helpers, self._examiners):
            pool.shutdown(wait=False, cancel_futures=True)

    def _extend(self, node: str) -> float:
        """Begin a quarantine, longer than the last one if that was a short time ago."""
        now_s, last = time.monotonic(), self._records.get(node)
        length_s = FIRST_S
        if last is not None and now_s < last.until_s + _GOOD * last.length_s:
            length_s = min(LONGEST_S, 2 * last.length_s)
        self._records[node] = _Record(until_s=now_s + length_s, length_s=length_s)
        self._loop.at(now_s + length_s, partial(self._check, node))
        return length_s

    def _check(self, node: str) -> None:
        if node in self.lost and node not in self._checked:
            self._checked.add(node)
            self._helpers.submit(self._revive, node, REVIVE_S).add_done_callback(
                lambda ended: self._loop.put(partial(self._end_check, node, ended))
            )

    def _end_check(self, node: str, ended: Future[None]) -> None:
        self._checked.discard(node)
        if ended.exception() is None:
            self.lost -= {node}
            logger.warning("node %r gets work again", node)
            self._returned()
        elif self._is_urgent():
            self._loop.at(time.monotonic() + _HURRY_S, partial(self._check, node))
        elif self._records[node].until_s <= time.monotonic():
            self._extend(node)


def _is_silent(answer: Future[None]) -> bool:
    return not answer.done() or answer.exception() is not None
