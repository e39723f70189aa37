"""Samples in a batch, and memory for their rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from layoutsel.device.signature import Signature
from layoutsel.device.tensors import empty_tensor
from layoutsel.exits.batch_segments import Tensor
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.verdict import Verdict
from layoutsel.exits.waiting import WaitingRequest
from layoutsel.runtime.arrays import to_array


@dataclass(slots=True, eq=False)
class BatchedSample:
    """A request in a batch."""

    request: WaitingRequest
    """The request."""
    row: int
    """Its row in all tensors."""
    verdict: Verdict | None = None
    """Results so far, if thresholds alone do not decide."""
    best: ExitAnswer | None = None
    """Result with the largest score so far, if there is a deadline."""

    def improves(self, score: float) -> bool:
        """True if an unsure result is the best one for a deadline so far."""
        if self.request.deadline_s == math.inf or math.isnan(score):
            return False
        return self.best is None or score > self.best.score


class Probe(WaitingRequest):
    """A request whose result nobody needs."""

    __slots__ = ()

    @property
    def is_wanted(self) -> bool:
        """Always true."""
        return True

    def _end(self, result: ExitAnswer | BaseException) -> None:
        if isinstance(result, BaseException):
            raise result


class RowBuffers:
    """Memory for the rows of one batch, by size and tensor."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], tuple[np.ndarray, Tensor]] = {}

    def of(self, size: int, like: Signature) -> tuple[np.ndarray, Tensor]:
        """Array and tensor on the same memory; rows that were never written are zero."""
        key = size, like.name
        if key not in self._known:
            tensor = empty_tensor((size, *like.shape[1:]), like.dtype)
            array = to_array(tensor)
            array[...] = 0
            self._known[key] = array, tensor
        return self._known[key]
