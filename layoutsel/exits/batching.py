"""Batches of requests on one worker: sure samples leave at each exit, and the others close ranks.

Each batch size has code of its own. After an exit, the rows of the samples that are not sure are
copied together once they fit the next smaller size. Rows without a sample hold earlier values,
which no result depends on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from layoutsel.device.signature import Signature
from layoutsel.errors import DeadlineMissed, NoBatches
from layoutsel.exits.batch_samples import BatchedSample, Probe, RowBuffers
from layoutsel.exits.batch_segments import (
    ExitRows,
    ExitSegment,
    Values,
    check_rows,
    copy_rows,
    in_segments,
    segments_of,
    stages_as,
)
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.lanes import Lanes
from layoutsel.exits.policy import Policy
from layoutsel.exits.server_statistics import ServerRecord
from layoutsel.exits.verdict import AnswerRule, Verdict
from layoutsel.exits.waiting import WaitingRequest
from layoutsel.runtime.arrays import name_of
from layoutsel.runtime.binding import bind
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs


class ExitBatches:
    """Answers several requests at once, on the stages of one worker.

    Calls of several threads are safe, and take turns from one exit to the next.

    Parameters
    ----------
    models
        Compiled models of one network by batch size, divided into the same stages.
    inputs
        Inputs of the network for one sample.
    lanes
        Stages of one worker.
    exits
        Names of the exits.
    threads
        Number of threads.
    counts
        Number of requests to begin with when 1, 2, … of them wait; all of them if empty.

    Raises
    ------
    NoBatches
        If the stages are those of several workers, or a tensor between them is not made of rows.
    """

    def __init__(
        self,
        models: Mapping[int, CompiledModel],
        inputs: Sequence[Signature],
        lanes: Lanes,
        exits: Sequence[str],
        threads: int,
        counts: Sequence[int] = (),
    ) -> None:
        least = models[min(models)]
        numbers = in_segments(lanes)
        if numbers is None:
            raise NoBatches("batches run on one worker: got the stages of several ones")
        self.sizes = tuple(sorted(models))
        """Batch sizes, ascending."""
        self._exits, self._last = exits, lanes.exits[-1]
        self._running = lanes.exits
        self._inputs = inputs
        self._dtypes = [one.dtype for one in self._inputs]
        self._tensors = {
            one.name: one for entry in least.stages for one in (*entry.inputs, *entry.outputs)
        }
        self._segments: dict[int, tuple[ExitSegment, ...]] = {}
        for size, model in models.items():
            stages = stages_as(least, model)
            check_rows(least.stages, stages, (min(models), size))
            caller = model.caller(threads=threads)
            self._segments[size] = segments_of(stages, numbers, caller, size)
        self._fitting = [next(s for s in self.sizes if s >= n) for n in range(1, self.most + 1)]
        self._counts = counts if len(counts) == self.most else range(1, self.most + 1)
        nobody = Policy(score="max_prob", thresholds=(None,) * len(exits))
        self._nobody = AnswerRule(policy=nobody, answer="ordered")
        self._free: list[RowBuffers] = []
        self.has_nan = False
        """True once a score was not a number."""
        for size in self.sizes:
            self.segment_times_us(size)  # prepares primitives and memory

    @property
    def most(self) -> int:
        """Largest number of requests at once."""
        return self.sizes[-1]

    def count(self, waiting: int) -> int:
        """Number of requests to begin with when so many wait."""
        return self._counts[min(waiting, self.most) - 1]

    def answer(self, rule: AnswerRule, requests: Sequence[WaitingRequest]) -> None:
        """Answer at most :attr:`most` requests, each of them at the first exit that is sure.

        At its deadline, a request leaves with the best result so far; one that is not wanted any
        more leaves at the next exit. Errors end the requests that they concern.
        """
        samples, arrays = self._bound(rule, requests)
        if not samples:
            return
        buffers = self._taken()
        size = self._fitting[len(samples) - 1]
        values = self._stacked(size, arrays, buffers)
        try:
            for number in range(len(self._segments[size])):
                samples = self._staying(samples)
                if not samples:
                    break
                fitting = self._fitting[len(samples) - 1]
                if fitting < size:
                    needs = self._segments[size][number].needs
                    values = self._compacted(values, needs, samples, fitting, buffers)
                    size = fitting
                samples = self._advance(rule, size, number, values, samples)
        except BaseException as error:  # it belongs to those who wait
            for sample in samples:
                sample.request.fail(error)
            if not isinstance(error, Exception):
                raise  # an interrupt, for a call on the thread that it belongs to
        self._free.append(buffers)

    def segment_times_us(self, size: int) -> list[float]:
        """Time a full batch of requests of which no exit is sure, segment by segment."""
        start_s = time.perf_counter()
        inputs = random_inputs(self._inputs)
        probes = [Probe(inputs, start_s, math.inf, ServerRecord()) for _ in range(size)]
        buffers, found = self._taken(), []
        start_s = time.perf_counter()
        samples, arrays = self._bound(self._nobody, probes)
        values = self._stacked(size, arrays, buffers)
        for number in range(len(self._segments[size])):
            samples = self._advance(self._nobody, size, number, values, self._staying(samples))
            now_s = time.perf_counter()
            found.append(1e6 * (now_s - start_s))
            start_s = now_s
        self._free.append(buffers)
        return found

    def _taken(self) -> RowBuffers:
        """Memory that no other batch uses; a batch in the callback of another has its own."""
        try:
            return self._free.pop()
        except IndexError:
            return RowBuffers()

    def _bound(
        self, rule: AnswerRule, requests: Sequence[WaitingRequest]
    ) -> tuple[list[BatchedSample], list[Sequence[np.ndarray]]]:
        """Check the inputs of requests; those with wrong ones fail."""
        samples: list[BatchedSample] = []
        arrays: list[Sequence[np.ndarray]] = []
        for request in requests:
            bound = request.arguments
            try:
                if request.named or not self._fits(bound):
                    bound = bind(self._inputs, request.arguments, request.named)
            except Exception as error:  # objects that are no arrays may fail in any way
                request.fail(error)
                continue
            verdict = None if rule.levels is not None else Verdict(rule, self._running)
            samples.append(BatchedSample(request, len(samples), verdict))
            arrays.append(bound)
        return samples, arrays

    def _fits(self, arrays: Sequence[np.ndarray]) -> bool:
        """True if inputs need no check of their values, and have the right shapes and types."""
        return len(arrays) == len(self._inputs) and all(
            isinstance(array, np.ndarray)
            and array.shape == one.shape
            and name_of(array.dtype) == dtype
            and not one.ranges
            for array, one, dtype in zip(arrays, self._inputs, self._dtypes, strict=True)
        )

    def _stacked(
        self, size: int, arrays: Sequence[Sequence[np.ndarray]], buffers: RowBuffers
    ) -> Values:
        """Copy the inputs of all requests into rows."""
        values = {}
        for place in range(len(self._inputs)):
            name = f"input.{place}"
            if name in self._tensors:
                stacked, values[name] = buffers.of(size, self._tensors[name])
                for row, one in enumerate(arrays):
                    stacked[row] = one[place][0]
        return values

    def _staying(self, samples: Sequence[BatchedSample]) -> list[BatchedSample]:
        """Samples that go on; those at their deadline, and those that nobody wants, leave."""
        staying = []
        now_s = time.perf_counter()
        for sample in samples:
            request = sample.request
            if not request.is_wanted:
                request.leave()
            elif now_s < request.deadline_s:
                staying.append(sample)
            elif sample.best is None:
                request.fail(DeadlineMissed("a request had no result of any exit at its deadline"))
            else:
                sample.best.at_deadline = True
                request.answer(sample.best)
        return staying

    def _compacted(
        self,
        values: Values,
        needs: Sequence[str],
        samples: Sequence[BatchedSample],
        size: int,
        buffers: RowBuffers,
    ) -> Values:
        """Copy the rows of some samples together, for a smaller batch size."""
        rows = [sample.row for sample in samples]
        found = {name: buffers.of(size, self._tensors[name]) for name in needs}
        copy_rows([(values[name], *found[name]) for name in needs], rows)
        for row, sample in enumerate(samples):
            sample.row = row
        return {name: tensor for name, (_, tensor) in found.items()}

    def _advance(
        self,
        rule: AnswerRule,
        size: int,
        number: int,
        values: Values,
        samples: list[BatchedSample],
    ) -> list[BatchedSample]:
        """Run one segment, answer the samples that are sure, and return the others."""
        for rows in self._segments[size][number].run(values):
            samples = self._tested(rule, rows, samples)
        return samples

    def _tested(
        self,
        rule: AnswerRule,
        rows: ExitRows,
        samples: list[BatchedSample],
    ) -> list[BatchedSample]:
        """Answer the samples that an exit is sure of, and return the others."""
        exit_, classes, scores, labels = rows
        level = math.nan if rule.levels is None else rule.levels[exit_]
        is_last = exit_ == self._last
        name, is_early = self._exits[exit_], exit_ + 1 < len(self._exits)
        others = []
        for sample in samples:
            row = sample.row
            score = scores[row]
            is_sure = is_last or score >= level
            self.has_nan = self.has_nan or math.isnan(score)
            if sample.verdict is not None:
                sample.verdict.arrive(exit_, score, labels[row])
                is_sure = sample.verdict.answer is not None
            if is_sure or sample.improves(score):
                answer = ExitAnswer(
                    label=labels[row],
                    scores=classes[row : row + 1],
                    score=score,
                    exit=name,
                    us=0.0,
                    cancelled=is_early,
                )
                if is_sure:
                    sample.request.answer(answer)
                    continue
                sample.best = answer
            others.append(sample)
        return others
