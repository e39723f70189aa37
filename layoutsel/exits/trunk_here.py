"""Trunks that run on the calling thread, while branches run on a worker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from layoutsel.device.stage_caller import StageCaller
from layoutsel.device.threads import shares_openmp
from layoutsel.errors import Cancelled
from layoutsel.exits.arrangement import ExitCosts, WorkerKind
from layoutsel.exits.lanes import Lanes
from layoutsel.exits.pace import SWITCH_US
from layoutsel.exits.request import ExitRequest


def pays(costs: ExitCosts) -> bool:
    """Tell if an answer waits less for the end of a sub-graph of the trunk than for a thread.

    A branch's answer is returned at the end of the trunk's current sub-graph if the calling thread
    runs the trunk, and after a switch of threads otherwise.
    """
    single = (kind.name for kind in costs.workers if kind.cores == 1)
    times_us = next((np.concatenate(costs.trunk_us[name]) for name in single), np.zeros(0))
    whole_us = float(times_us.sum())
    # An answer meets a sub-graph in proportion to its time, and its middle in the mean.
    return not whole_us or float(times_us @ times_us) / (2 * whole_us) < SWITCH_US


def runs_here(lanes: Lanes, kind: WorkerKind) -> bool:
    """Tell if the calling thread can run the trunk, in place of the trunk's worker.

    The worker has one core of its own, and the trunk waits for no branch. With a single other
    worker, the order of requests there cannot hold up another one's.
    """
    return (
        shares_openmp()
        and (kind.threads, kind.cores, len(lanes.lanes)) == (1, 1, 2)
        and not any(step.awaits for step in lanes.lanes[0].steps)
    )


class TrunkHere:
    """Runs the lane of the trunk on the calling thread, which saves two switches of threads.

    The thread is pinned to the core of the trunk's worker meanwhile. The answer of a branch stops
    the trunk at the end of its current sub-graph, and is returned then.

    Parameters
    ----------
    lanes
        Stages by worker, the trunk's first.
    caller
        Runs the stages under a token.
    cores
        Cores of the trunk's worker.
    """

    def __init__(self, lanes: Lanes, caller: StageCaller, cores: Sequence[int]) -> None:
        self._caller, self._cores = caller, cores
        self._functions = [caller.function(step.chain) for step in lanes.lanes[0].steps]

    def run(self, request: ExitRequest) -> None:
        """Run the trunk of a request after those of other threads, to its end or its cancellation.

        Errors of its stages are raised.
        """
        self._caller.run(self._pinned, request)

    def _pinned(self, request: ExitRequest) -> None:
        before = os.sched_getaffinity(0)  # 0 is the calling thread, not the process
        with suppress(OSError):  # this process may have lost the core since
            os.sched_setaffinity(0, self._cores)
        try:
            with request.tokens[0].watching():
                request.run(0, self._functions)
        except Cancelled:
            pass  # the request has ended
        finally:
            with suppress(OSError):
                os.sched_setaffinity(0, before)
