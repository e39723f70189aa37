"""Runs of segments on one node: the atoms of an artifact, one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

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
        Time limit of an atom, seconds.
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
            If an input is missing or has another shape or element type than the atom expects.
        RunTimeout
            If an atom exceeds its time limit.
        """
        clock = _StopWatch()
        with self._turn:
            queue_us = clock.lap_us()
            tensors = dict(inputs)
            for number, atom in enumerate(work.atoms):
                self._run_atom(work, atom, tensors)
                _drop_unread(tensors, self._readers(work, number + 1))
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

    def _run_atom(self, work: Work, atom: str, tensors: dict[str, np.ndarray]) -> None:
        try:
            # A limit of its own, in case that the worker's own watch does not see it.
            tensors.update(self._worker.run(atom, tensors).result(2 * self._limit_s))
        except InputError as error:
            raise InputError(
                f"segment {work.segment!r} on node {self._node!r}, atom {atom!r}: {error}"
            ) from error

    def _readers(self, work: Work, begin: int) -> Callable[[str], bool]:
        """Predicate for tensors that atoms from `begin` on read or the segment returns."""
        read = {one.name for atom in work.atoms[begin:] for one in self._worker.entry(atom).inputs}
        return read.union(work.outputs).__contains__


def _drop_unread(tensors: dict[str, np.ndarray], is_read: Callable[[str], bool]) -> None:
    for name in [name for name in tensors if not is_read(name)]:
        del tensors[name]


class _StopWatch:
    """Time between laps."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def lap_us(self) -> float:
        """Microseconds since the last lap."""
        before, self._start = self._start, time.perf_counter()
        return 1e6 * (self._start - before)
