"""Runs of segments on one node: the atoms of an artifact, one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from layoutsel.cluster.crossing import CrossingError, TensorHeader, received
from layoutsel.cluster.engine import RunTimes, Work
from layoutsel.device.worker_jobs import LIMIT_S
from layoutsel.errors import InputError
from layoutsel.runtime.arrays import bits_of, dtype_of
from layoutsel.runtime.compiled import CompiledModel


@dataclass(frozen=True, kw_only=True)
class PackedTensor:
    """A tensor with its header, in a form that processes can exchange."""

    header: TensorHeader
    """Form of the tensor."""
    bits: np.ndarray
    """Its elements; those of bfloat16 as integers, as numpy lacks the type."""

    @classmethod
    def plain(cls, array: np.ndarray) -> PackedTensor:
        """Pack an input of the model."""
        header = TensorHeader(dtype=array.dtype.name, shape=array.shape)
        return cls(header=header, bits=bits_of(array))

    @property
    def array(self) -> np.ndarray:
        """The tensor in memory, without a copy."""
        return self.bits.view(dtype_of(self.header.dtype))


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

    def run(
        self, work: Work, inputs: Mapping[str, PackedTensor]
    ) -> tuple[dict[str, PackedTensor], RunTimes]:
        """Run a segment and return its outputs by name.

        Raises
        ------
        CrossingError
            If an input is missing, or is another tensor than the segment expects.
        InputError
            If an input of the model holds an index out of range.
        RunTimeout
            If the segment exceeds its time limit.
        """
        clock = _StopWatch()
        with self._turn:
            queue_us = clock.lap_us()
            arrays = self._unpacked(work, inputs)
            unpack_us = clock.lap_us()
            try:
                # The worker has the same limit, and names the stage.
                run = self._worker.run(work.atoms, arrays)
                results = run.result(2 * self._limit_s)
            except InputError as error:
                raise InputError(f"{self._where(work)}: {error}") from error
            compute_us = 1e6 * run.ran_s
            queue_us += clock.lap_us() - compute_us  # the rest is the way to the thread and back
            outputs = self._packed(work, results)
        times = RunTimes(
            queue_us=queue_us,
            unpack_us=unpack_us,
            compute_us=compute_us,
            pack_us=clock.lap_us(),
        )
        return outputs, times

    def close(self) -> None:
        """End the threads."""
        self._worker.close(cancel=True)

    def _unpacked(self, work: Work, inputs: Mapping[str, PackedTensor]) -> dict[str, np.ndarray]:
        where = self._where(work)
        arrays = {}
        for wanted in self._worker.chain(work.atoms).inputs:
            if wanted.name not in inputs:
                raise CrossingError(
                    f"{where}: the tensor {wanted.name} is missing; got {', '.join(inputs)}"
                )
            packed = inputs[wanted.name]
            arrays[wanted.name] = received(packed.array, packed.header, wanted, segment=where)
        return arrays

    def _packed(self, work: Work, results: Mapping[str, np.ndarray]) -> dict[str, PackedTensor]:
        made = {one.name: one for one in self._worker.chain(work.atoms).outputs}
        if absent := [name for name in work.outputs if name not in made]:
            raise CrossingError(
                f"{self._where(work)}: its atoms make no tensor {absent[0]}; expected one of "
                f"{', '.join(made)}"
            )
        return {
            name: PackedTensor(header=TensorHeader.of(made[name]), bits=bits_of(results[name]))
            for name in work.outputs
        }

    def _where(self, work: Work) -> str:
        return f"{work.segment} on node {self._node}"


class _StopWatch:
    """Time between laps."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def lap_us(self) -> float:
        """Microseconds since the last lap."""
        before, self._start = self._start, time.perf_counter()
        return 1e6 * (self._start - before)
