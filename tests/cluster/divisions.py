"""The best division of a small network over nodes by trying all cuts: the oracle of candidate cuts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.cost.tensor import Tensor
from tvm_passes.decision import SubgraphId


@dataclass(frozen=True)
class Cluster:
    """Nodes in the order of the pipeline, the first of which holds inputs and results."""

    speeds: tuple[float, ...]
    """Speed of each node; work divided by it is time."""
    us_per_byte: float
    """Time of a byte at its sender and at its receiver, microseconds."""
    message_us: float = 0.0
    """Time of a message at its sender and at its receiver, microseconds."""


class Cuts:
    """All cuts of a network, as sets of earlier sub-graphs."""

    def __init__(
        self, work_us: Mapping[SubgraphId, float], tensors: Sequence[Tensor], most: int = 5000
    ) -> None:
        self.position = {id_: number for number, id_ in enumerate(work_us)}
        self.tensors = [tensor for tensor in tensors if tensor.producer is not None]
        before = [0] * len(work_us)
        for tensor in self.tensors:
            for use in tensor.uses:
                if use.consumer is not None:
                    before[self.position[use.consumer]] |= 1 << self.position[tensor.producer]
        self.sets = sorted(_ideals(before, most), key=lambda bits: (bits.bit_count(), bits))
        held = np.array([[bits >> i & 1 for i in range(len(work_us))] for bits in self.sets])
        self.held = held.astype(bool)
        self.work_us = self.held @ np.array(list(work_us.values()))
        self._measure()

    def _measure(self) -> None:
        """Bytes and tensors that the part between each two cuts receives and sends."""
        count = len(self.sets)
        self.received, self.sent = np.zeros((count, count)), np.zeros((count, count))
        self.messages = np.zeros((2, count, count))
        for tensor in self.tensors:
            made = self.held[:, self.position[tensor.producer]]
            readers = [self.position[u.consumer] for u in tensor.uses if u.consumer is not None]
            if not readers:
                continue
            done = self.held[:, readers].sum(axis=1)
            grows = done[None, :] > done[:, None]
            self.received += tensor.bytes * (made[:, None] & grows)
            self.messages[0] += made[:, None] & grows
            leaves = ~made[:, None] & made[None, :] & (done < len(set(readers)))[None, :]
            self.sent += tensor.bytes * leaves
            self.messages[1] += leaves
        numbers = self.held.astype(np.float32)
        self.nested = numbers @ (1 - numbers).T < 0.5

    def within(self, atoms: Iterable[Sequence[SubgraphId]]) -> np.ndarray:
        """The cuts that divide no atom."""
        allowed = np.ones(len(self.sets), dtype=bool)
        for atom in atoms:
            inside = self.held[:, [self.position[id_] for id_ in atom]]
            allowed &= inside.all(axis=1) | ~inside.any(axis=1)
        return np.flatnonzero(allowed)

    def best(self, cluster: Cluster, allowed: np.ndarray | None = None) -> tuple[float, float]:
        """The smallest load of the busiest node, and the smallest latency of one request."""
        some = np.arange(len(self.sets)) if allowed is None else allowed
        pick = np.ix_(some, some)
        work = self.work_us[some][None, :] - self.work_us[some][:, None]
        sent = cluster.us_per_byte * self.sent[pick] + cluster.message_us * self.messages[1][pick]
        received = cluster.us_per_byte * self.received[pick]
        received += cluster.message_us * self.messages[0][pick]
        nested = self.nested[pick]
        load, latency = np.full(len(some), np.inf), np.full(len(some), np.inf)
        load[0] = latency[0] = 0.0
        for speed in cluster.speeds:
            own = np.where(nested, work / speed + sent + received, np.inf)
            load = np.maximum(load[:, None], own).min(axis=0)
            sends = np.where(nested, work / speed + sent, np.inf)
            latency = (latency[:, None] + sends).min(axis=0)
        return float(load[-1]), float(latency[-1])


def _ideals(before: Sequence[int], most: int) -> set[int]:
    found, waiting = {0}, [0]
    while waiting:
        bits = waiting.pop()
        for number, needed in enumerate(before):
            if not bits >> number & 1 and not needed & ~bits:
                grown = bits | 1 << number
                if grown not in found:
                    found.add(grown)
                    waiting.append(grown)
                    if len(found) > most:
                        raise OverflowError(f"more than {most} cuts")
    return found
