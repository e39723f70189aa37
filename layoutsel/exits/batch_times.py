"""Times of batches, and the largest one that pays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from layoutsel.documents.saved import Fault, SavedDocument
from layoutsel.exits.patterns import SurePattern, pattern_table

TIMES = "exit_batches"
"""Entry of an artifact's header: :class:`BatchTimes` of the arrangement of its plan."""
GAIN = 0.05
"""Relative gain in time per request that a larger batch must promise."""


@dataclass(frozen=True, kw_only=True)
class BatchTimes(SavedDocument):
    """Times of a network in batches of several sizes, on one worker."""

    threads: int
    """Number of threads of the batches."""
    single_us: float
    """Mean time of a request alone, on the threads of its arrangement, microseconds."""
    segments_us: Mapping[str, tuple[float, ...]]
    """Times of the segments by batch size, microseconds; size 1 is for the last one of a batch."""
    shares: tuple[float, ...]
    """Share of the requests that reaches each segment."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes, ascending."""
        return tuple(sorted(map(int, self.segments_us)))

    def batch_us(self, requests: int) -> float:
        """Mean time until the last answer of requests that begin together, microseconds.

        Requests leave independently of each other. Those that stay run in the smallest size that
        holds them. A single request runs alone.

        Parameters
        ----------
        requests
            Number of requests, at most the largest size.
        """
        if requests == 1:
            return self.single_us
        found = 0.0
        for number, share in enumerate(self.shares):
            for staying in range(1, requests + 1):
                odds = (
                    math.comb(requests, staying)
                    * share**staying
                    * (1 - share) ** (requests - staying)
                )
                found += odds * self.segments_us[str(self._fitting(staying))][number]
        return found

    def up_to(self, most: int) -> BatchTimes:
        """Copy without the sizes above `most`."""
        kept = {size: us for size, us in self.segments_us.items() if int(size) <= most}
        return replace(self, segments_us=kept)

    def largest(self) -> int:
        """Largest size worth having: each one below it takes less time per request with it.

        It is 1 if no batch pays.
        """
        chosen, least_us = 1, self.single_us
        for size in self.sizes:
            us = self.batch_us(size) / size
            if us < (1 - GAIN) * least_us:
                chosen, least_us = size, us
        return chosen

    def counts(self) -> tuple[int, ...]:
        """Number of requests to begin with when 1, 2, … of them wait, up to the largest size.

        It has the least time per request. Some that wait are left for the next batch if they would
        lead to a size that is mostly empty.
        """
        most = self.sizes[-1]
        each_us = [self.batch_us(count) / count for count in range(1, most + 1)]
        return tuple(
            min(range(1, waiting + 1), key=lambda count: (each_us[count - 1], -count))
            for waiting in range(1, most + 1)
        )

    def faults(self) -> Iterator[Fault]:
        """Yield the inconsistencies of times that were read from a file."""
        sizes = list(self.segments_us)
        if not sizes or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            yield "$.segments_us", f"the sizes {sizes}", "one or more positive numbers"
            return
        for size, segments in self.segments_us.items():
            if len(segments) != len(self.shares):
                got = f"{len(segments)} segments"
                yield f"$.segments_us.{size}", got, f"{len(self.shares)}, one for each share"

    def _fitting(self, requests: int) -> int:
        return next(size for size in self.sizes if size >= requests)


def times_in(header: Mapping[str, Any], where: str) -> BatchTimes | None:
    """Read the times of batches in an artifact's header; None if there are none.

    Parameters
    ----------
    header
        Header of the artifact.
    where
        Name of the artifact, for error messages.
    """
    return BatchTimes.read(header[TIMES], file=where) if TIMES in header else None


def shares_reaching(
    patterns: Sequence[SurePattern], exits: int, segments: Sequence[Sequence[int]]
) -> tuple[float, ...]:
    """Share of the requests that reaches each segment.

    Parameters
    ----------
    patterns
        Observed patterns of sure exits; without any, no exit is sure.
    exits
        Number of exits, the final one included.
    segments
        Exits whose results are complete at the end of each segment.
    """
    sure, samples = pattern_table(patterns, exits)
    found, reaching = [], samples.astype(float)
    for complete in segments:
        found.append(float(reaching.sum() / samples.sum()))
        reaching = reaching * ~sure[:, list(complete)].any(axis=1)
    return tuple(found)
