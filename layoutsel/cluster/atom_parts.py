"""Parts of a network on the way to atoms: sub-graphs that are joined, and the loss of joining them.

See :mod:`layoutsel.cluster.atoms` for the rule.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from layoutsel.cost.tensor import Tensor
from tvm_passes.decision import SubgraphId

DRIFT = 1 / 800
"""Maximum work by which rule 1 moves a cut, as a share of the network's work.

Both ends of one of 8 equal parts then change its work by at most 2 %.
"""
MESSAGE_BYTES = 32768
"""Number of bytes whose transfer takes as long as a message without content."""
STAGE_US = 10.0
"""Time of entering a stage and of allocating its tensors, microseconds."""
COPY_US = 1.5e-4
"""Time of copying a byte, microseconds."""


@dataclass(frozen=True)
class PartFlow:
    """A tensor between sub-graphs or parts, given by their positions."""

    producer: int
    readers: int
    """Bit set."""
    bytes: int
    joins: int = -1
    """Part that must copy the tensor, with a concatenation that it could be written into; or -1."""


@dataclass(frozen=True)
class PartPair:
    """Two parts that may be joined, with the loss of all cuts between them."""

    first: int
    second: int
    moved_us: float
    """Work that changes sides, or can no longer run at the same time as other work."""
    extra_bytes: float
    """Bytes that cross in addition."""
    saved_us: float = 0.0
    """Time that a node saves if it runs both as one."""


@dataclass
class NetworkParts:
    """Convex parts in a topological order; sets of parts are bit sets."""

    work_us: list[float]
    """Work of each part."""
    drift_us: list[float]
    """Maximum work by which a cut inside each part has been moved."""
    members: list[list[int]]
    """Positions of each part's sub-graphs."""
    flows: list[PartFlow]
    """Tensors between parts."""
    total_us: float
    """Work of the network."""
    total_bytes: float
    """Bytes of all tensors of the network."""
    made: list[list[PartFlow]] = field(init=False)
    """Tensors that each part makes."""
    read: list[list[PartFlow]] = field(init=False)
    """Tensors that each part reads."""
    before: list[int] = field(init=False)
    """Direct producers of each part."""
    after: list[int] = field(init=False)
    """Direct consumers of each part."""
    ancestors: list[int] = field(init=False)
    """All parts before each part."""
    descendants: list[int] = field(init=False)
    """All parts after each part."""

    @classmethod
    def single(
        cls,
        work_us: Mapping[SubgraphId, float],
        tensors: Sequence[Tensor],
        joins: Mapping[str, SubgraphId],
    ) -> NetworkParts:
        """Make a part of each sub-graph."""
        position = {id_: number for number, id_ in enumerate(work_us)}
        flows = [
            PartFlow(
                position[tensor.producer],
                _bits(position[use.consumer] for use in tensor.uses if use.consumer is not None),
                tensor.bytes + MESSAGE_BYTES,
                position[joins[tensor.name]] if tensor.name in joins else -1,
            )
            for tensor in tensors
            if tensor.producer is not None
        ]
        flows = [flow for flow in flows if flow.readers]
        return cls(
            work_us=list(work_us.values()),
            drift_us=[0.0] * len(work_us),
            members=[[number] for number in range(len(work_us))],
            flows=flows,
            total_us=max(sum(work_us.values()), 1e-9),
            total_bytes=max(sum(flow.bytes for flow in flows), 1),
        )

    def __post_init__(self) -> None:
        count = len(self.members)
        self.made, self.read = [[] for _ in range(count)], [[] for _ in range(count)]
        self.before, self.after = [0] * count, [0] * count
        for flow in self.flows:
            self.made[flow.producer].append(flow)
            for reader in _numbers(flow.readers):
                self.read[reader].append(flow)
                self.before[reader] |= 1 << flow.producer
                self.after[flow.producer] |= 1 << reader
        self.ancestors, self.descendants = list(self.before), list(self.after)
        for number in range(count):
            for other in _numbers(self.before[number]):
                self.ancestors[number] |= self.ancestors[other]
        for number in reversed(range(count)):
            for other in _numbers(self.after[number]):
                self.descendants[number] |= self.descendants[other]

    @property
    def overhead(self) -> float:
        """Time that the parts cost a node that runs all of them, as a share of the work."""
        copied = sum(flow.bytes for flow in self.flows if flow.joins >= 0)
        return (STAGE_US * len(self.members) + COPY_US * copied) / self.total_us

    def dominated(self) -> Iterator[PartPair]:
        """Yield the pairs whose separating cuts are all dominated (rule 1)."""
        most_us = DRIFT * self.total_us
        for pair in self._pairs():
            if pair.extra_bytes <= 0 and self._drift_us(pair) <= most_us:
                yield pair

    def by_loss(self) -> list[PartPair]:
        """List the pairs by their loss (rule 2)."""
        return sorted(self._pairs(), key=self._loss)

    def _loss(self, pair: PartPair) -> float:
        extra = max(0.0, pair.extra_bytes) / self.total_bytes
        return (self._drift_us(pair) / self.total_us + extra) / pair.saved_us

    def _drift_us(self, pair: PartPair) -> float:
        return max(self.drift_us[pair.first], self.drift_us[pair.second]) + pair.moved_us

    def smallest_neighbours(self) -> PartPair:
        """Return the parts next to each other in the order that have the least work together.

        They can always be joined.
        """
        numbers = pairwise(range(len(self.members)))
        first, second = min(numbers, key=lambda pair: sum(self.work_us[one] for one in pair))
        moved_us = min(self.work_us[first], self.work_us[second])
        return PartPair(first, second, moved_us, 0.0)

    def disjoint(self, pairs: Iterator[PartPair] | Sequence[PartPair]) -> list[PartPair]:
        """Keep the first pairs of each part; to join them all leaves no cycle.

        In each pair, one part is reached by all paths into the pair, and starts all paths out of
        it, so a cycle of joined parts would be a cycle of the network.
        """
        taken: set[int] = set()
        kept = []
        for pair in pairs:
            if taken.isdisjoint((pair.first, pair.second)):
                taken |= {pair.first, pair.second}
                kept.append(pair)
        return kept

    def joined(self, pairs: Sequence[PartPair]) -> NetworkParts:
        """Return the parts with these disjoint pairs joined."""
        leader = list(range(len(self.members)))
        drift_us = list(self.drift_us)
        for pair in pairs:
            leader[pair.second] = pair.first
            drift_us[pair.first] = self._drift_us(pair)
        members: dict[int, list[int]] = {}
        for number, one in enumerate(leader):
            members.setdefault(one, []).extend(self.members[number])
        order = _topological({one: min(held) for one, held in members.items()}, self.flows, leader)
        place = {one: number for number, one in enumerate(order)}
        flows = []
        for flow in self.flows:
            producer = place[leader[flow.producer]]
            readers = _bits(place[leader[reader]] for reader in _numbers(flow.readers))
            if readers := readers & ~(1 << producer):
                joins = place[leader[flow.joins]] if flow.joins >= 0 else -1
                copied = -1 if joins == producer else joins
                flows.append(PartFlow(producer, readers, flow.bytes, copied))
        work_us = [0.0] * len(order)
        for number, one in enumerate(leader):
            work_us[place[one]] += self.work_us[number]
        return NetworkParts(
            work_us=work_us,
            drift_us=[drift_us[one] for one in order],
            members=[sorted(members[one]) for one in order],
            flows=flows,
            total_us=self.total_us,
            total_bytes=self.total_bytes,
        )

    def _pairs(self) -> Iterator[PartPair]:
        """Yield the joinable pairs of a producer and a reader, or of two readers of a tensor."""
        seen = set()
        for flow in self.flows:
            readers = list(_numbers(flow.readers))
            for pair in (*((flow.producer, reader) for reader in readers), *pairwise(readers)):
                if pair not in seen:
                    seen.add(pair)
                    if (found := self._pair(*pair)) is not None:
                        yield found

    def _pair(self, first: int, second: int) -> PartPair | None:
        """Judge the cuts between two parts, `first` being before `second` in the order."""
        copied = sum(flow.bytes for flow in self.made[first] if flow.joins == second)
        saved_us = STAGE_US + COPY_US * copied
        if self.descendants[first] >> second & 1:
            best = self._dominating(first, second)
            return PartPair(first, second, *best, saved_us) if best else None
        one, other = self._dominating(first, second), self._dominating(second, first)
        if one is None or other is None:
            return None
        together_us = min(self.work_us[first], self.work_us[second])
        moved_us, extra = max(one[0], other[0]) + together_us, max(one[1], other[1])
        return PartPair(first, second, moved_us, extra, saved_us)

    def _dominating(self, first: int, second: int) -> tuple[float, float] | None:
        """Find the best replacement of the cuts with only `first` on the earlier side.

        Returns the work that changes sides and the bytes that cross in addition; None if neither
        part can change sides alone.
        """
        found = []
        later = 1 << second | self.descendants[second]
        if not self.after[first] & ~later:
            saved = sum(flow.bytes for flow in self.made[first])
            added = sum(f.bytes for f in self.read[first] if not f.readers & later)
            found.append((self.work_us[first], float(added - saved)))
        earlier = 1 << first | self.ancestors[first]
        if not self.before[second] & ~earlier:
            among = earlier | 1 << second
            saved = sum(f.bytes for f in self.read[second] if not f.readers & ~among)
            added = sum(flow.bytes for flow in self.made[second])
            found.append((self.work_us[second], float(added - saved)))
        return min(found, key=lambda one: (max(one[1], 0.0), one[0]), default=None)


def _bits(numbers: Iterable[int]) -> int:
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return bits


def _numbers(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def _topological(
    earliest: Mapping[int, int], flows: Sequence[PartFlow], leader: Sequence[int]
) -> list[int]:
    """Order joined parts topologically, the one with the earliest sub-graph first."""
    after: dict[int, set[int]] = {one: set() for one in earliest}
    for flow in flows:
        after[leader[flow.producer]] |= {leader[reader] for reader in _numbers(flow.readers)}
    waiting = dict.fromkeys(earliest, 0)
    for one, readers in after.items():
        readers.discard(one)
        for reader in readers:
            waiting[reader] += 1
    ready = [(earliest[one], one) for one, count in waiting.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        _, one = heapq.heappop(ready)
        order.append(one)
        for reader in after[one]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, (earliest[reader], reader))
    assert len(order) == len(earliest), "joined parts form a cycle"
    return order
