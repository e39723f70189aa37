"""Pipelines of a planning problem: each node runs one contiguous part of the network.

The dynamic program of :mod:`~layoutsel.planning.contiguous` knows classes of equal machines, and
one time of a tensor at either end. A problem knows prices for each pair of memories, and several
resources. So the pipelines found here are only candidates, to be judged by their loads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from layoutsel.cost.tensor import Tensor
from layoutsel.planning.contiguous import best_contiguous
from layoutsel.planning.division import Division, DivisionProblem, SentTensor
from layoutsel.planning.loads import Rooms
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.resources import in_turn
from tvm_passes.decision import Decision, SubgraphId

_MOST_CLASSES = 4
"""Maximum number of classes of machines; more are joined by their speed."""
_MOST_PEERS = 8
"""Maximum number of other memories of which the times of a message are the mean."""
_NEVER_US = 1e15
"""Time of a sub-graph on a machine that has no candidate for it, microseconds."""
_OPERATIONS_PER_S = 3e8
"""Operations of the dynamic program per second, on a slow machine."""


def pipelines(
    problem: PlanningProblem, *, rooms: Rooms | None = None, time_limit_s: float = 5.0
) -> Iterator[Mapping[SubgraphId, Decision]]:
    """Yield good contiguous placements: with the processors' share of messages, and with all of it.

    Parameters
    ----------
    problem
        Candidates, boundaries and resources.
    rooms
        Limits of memories; none by default.
    time_limit_s
        Time limit, seconds.
    """
    deadline = time.monotonic() + time_limit_s
    machines = _Machines(problem, rooms or Rooms())
    for whole in (False, True):
        divided = machines.problem(whole=whole)
        found = best_contiguous(
            divided, deadline=deadline, operations=_OPERATIONS_PER_S * time_limit_s / 2
        )
        if found.division is not None and found.period_us < _NEVER_US:
            yield machines.decisions(found.division)


class _Machines:
    """Memories of a problem as machines of few classes."""

    def __init__(self, problem: PlanningProblem, rooms: Rooms) -> None:
        self._problem, self._rooms = problem, rooms
        self._memories = sorted({o.memory for node in problem.nodes for o in node.options})
        self._cheapest = [_by_memory(node) for node in problem.nodes]
        self._compute = np.array(
            [
                [self._time(options.get(memory)) for memory in self._memories]
                for options in self._cheapest
            ]
        )
        self._classes = self._joined()

    def problem(self, *, whole: bool) -> DivisionProblem:
        """Make the division problem; messages take their `whole` time, or that of processors."""
        first = [some[0] for some in self._classes]
        index = {node.id: i for i, node in enumerate(self._problem.nodes)}
        room = self._rooms.room_bytes
        return DivisionProblem(
            compute_us=np.stack(
                [self._compute[:, some].mean(axis=1) for some in self._classes], axis=1
            ),
            tensors=tuple(
                self._sent(tensor, index, first, whole)
                for tensor in self._problem.tensors
                if tensor.producer is not None and any(u.consumer is not None for u in tensor.uses)
            ),
            counts=tuple(map(len, self._classes)),
            bytes=np.array([self._rooms.held_bytes.get(n.id, 0.0) for n in self._problem.nodes]),
            limits=tuple(
                min(room.get(self._memories[m], np.inf) for m in some) for some in self._classes
            ),
        )

    def decisions(self, division: Division) -> Mapping[SubgraphId, Decision]:
        """Convert parts to decisions: the cheapest candidate of each sub-graph in its memory."""
        free = [list(some) for some in self._classes]
        memory_of = [self._memories[free[c].pop(0)] for c in division.classes]
        return {
            node.id: options[memory_of[part]].decision
            for node, options, part in zip(
                self._problem.nodes, self._cheapest, division.part_of, strict=True
            )
        }

    def _joined(self) -> list[list[int]]:
        """Join memories with equal times, or if there are too many, those of similar speed."""
        equal: dict[tuple[object, ...], list[int]] = {}
        for m, memory in enumerate(self._memories):
            key = (*self._compute[:, m].round(6).tolist(), self._rooms.room_bytes.get(memory))
            equal.setdefault(key, []).append(m)
        if len(equal) <= _MOST_CLASSES:
            return list(equal.values())
        speeds = np.minimum(self._compute, _NEVER_US).sum(axis=0)
        order = np.argsort(speeds, kind="stable")
        return [some.tolist() for some in np.array_split(order, _MOST_CLASSES) if len(some)]

    def _time(self, option: Option | None) -> float:
        if option is None:
            return _NEVER_US
        unit, memory = option.decision.unit, option.memory
        used = self._problem.resources.compute(unit, memory, option.cost_us)
        return max(used.busy_us.values(), default=0.0)

    def _sent(
        self, tensor: Tensor, index: Mapping[SubgraphId, int], first: Sequence[int], whole: bool
    ) -> SentTensor:
        assert tensor.producer is not None
        ends = [self._ends(tensor, self._memories[m], whole) for m in first]
        return SentTensor(
            producer=index[tensor.producer],
            consumers=tuple(
                sorted({index[u.consumer] for u in tensor.uses if u.consumer is not None})
            ),
            send_us=np.array([send for send, _ in ends]),
            receive_us=np.array([receive for _, receive in ends]),
        )

    def _ends(self, tensor: Tensor, memory: str, whole: bool) -> tuple[float, float]:
        """Compute the mean time of sending a tensor from a memory, and of receiving it there."""
        others = [other for other in self._memories if other != memory][:_MOST_PEERS]
        if not others:
            return 0.0, 0.0
        sent = [self._copying_us(tensor, (memory, other), memory, whole) for other in others]
        received = [self._copying_us(tensor, (other, memory), memory, whole) for other in others]
        return float(np.mean(sent)), float(np.mean(received))

    def _copying_us(self, tensor: Tensor, pair: tuple[str, str], memory: str, whole: bool) -> float:
        """Compute the time of the slowest resource of a copy, or of one memory's processor."""
        us = tensor.copy_us[pair]
        used = in_turn(self._problem.resources.boundary("copy", *pair, us)).busy_us
        if whole:
            return max(used.values(), default=0.0)
        own = self._problem.resources.compute("", memory, 1.0).busy_us
        return sum(us for name, us in used.items() if name in own)


def _by_memory(node: PricedSubgraph) -> dict[str, Option]:
    """Find the cheapest candidate in each memory."""
    found: dict[str, Option] = {}
    for option in node.options:
        other = found.get(option.memory)
        if other is None or option.cost_us < other.cost_us:
            found[option.memory] = option
    return found
