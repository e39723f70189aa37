"""Runs of segments on one node: the atoms of an artifact, one after the other."""

from __future__ import annotations

import threading
import time

import numpy as np

from layoutsel.cluster.engine import RunTimes, Tensors, Work
from layoutsel.device.worker_jobs import LIMIT_S
from layoutsel.errors import InputError
from layoutsel.runtime.compiled import CompiledModel


class SegmentRunner:
    """Runs segments of a compiled model, one at a time, on its own threads.

    Parameters
    ----------
    model
        Compiled model whose stages are the atoms.
    node
        Name of the node, for messages.
    threads
        Number of threads.
    limit_s
        Time limit of a segment, seconds.
    """

    def __init__(
        self, model: CompiledModel, node: str, *, threads: int = 1, limit_s: float = LIMIT_S
    ) -> None:
        self._worker = model.worker(threads=threads, limit_s=limit_s)
        self._node = node
        self._limit_s = limit_s
        self._turn = threading.Lock()

    def run(self, work: Work, inputs: Tensors) -> tuple[dict[str, np.ndarray], RunTimes]:
        """Run a segment and return its outputs by name.

        Raises
        ------
        InputError
            If an input is missing or has another shape or element type than the atoms expect.
        RunTimeout
            If the segment exceeds its time limit.
        """
        clock = _StopWatch()
        with self._turn:
            queue_us = clock.lap_us()
            tensors = self._results(work, inputs)
            compute_us = clock.lap_us()
        # Results may lie in the model's memory plan or share an array with an input.
        outputs = {name: np.ascontiguousarray(tensors[name]) for name in work.outputs}
        times = RunTimes(
            queue_us=queue_us, unpack_us=0.0, compute_us=compute_us, pack_us=clock.lap_us()
        )
        return outputs, times

    def close(self) -> None:
        """End the threads."""
        self._worker.close(cancel=True)

    def _results(self, work: Work, inputs: Tensors) -> dict[str, np.ndarray]:
        try:
            # A limit of its own, in case that the worker's own watch does not see it.
            return self._worker.run(work.atoms, inputs).result(2 * self._limit_s)
        except InputError as error:
            raise InputError(
                f"segment {work.segment!r} on node {self._node!r}, atoms {work.atoms[0]!r} to "
                f"{work.atoms[-1]!r}: {error}"
            ) from error


class _StopWatch:
    """Time between laps."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def lap_us(self) -> float:
        """Microseconds since the last lap."""
        before, self._start = self._start, time.perf_counter()
        return 1e6 * (self._start - before)
