"""Local search for divisions that need not be contiguous: moves of few sub-graphs between machines.

The objective is the greatest load, and among equal ones a high power mean of all loads, which leads
through plateaus. Contiguous divisions are good starts; random kicks leave local optima.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

from layoutsel.planning.division import Division, DivisionProblem, period_us

_POWER = 12.0
"""Exponent of the power mean."""
_KICKED = 6
"""Number of sub-graphs that a kick moves."""


def improved(
    problem: DivisionProblem, division: Division, *, deadline: float, seed: int = 0
) -> Division:
    """Improve a division without teams until the deadline, or until many kicks in a row fail.

    Parameters
    ----------
    problem
        Sub-graphs, tensors and machines.
    division
        Division to start with; machines that it does not use join.
    deadline
        Deadline by :func:`time.monotonic`, seconds.
    seed
        Seed of the kicks.
    """
    search = _Search(problem, _on_all_machines(problem, division))
    rng = random.Random(seed)
    search.descend(range(problem.size), deadline)
    best, value = search.state(), search.value()
    failed = 0
    while time.monotonic() < deadline and failed < 50 * problem.size and problem.size > 1:
        kicked = search.kick(rng)
        search.descend(kicked, deadline)
        if search.value() < value - 1e-12:
            best, value, failed = search.state(), search.value(), 0
        else:
            search.restore(best)
            failed += 1
    found = Division(part_of=best, classes=problem.machines)
    return min((division, found), key=lambda one: period_us(problem, one))


def _on_all_machines(problem: DivisionProblem, division: Division) -> list[int]:
    """Number the parts by machines of their class."""
    free: dict[int, list[int]] = {}
    for machine, c in enumerate(problem.machines):
        free.setdefault(c, []).append(machine)
    machine_of = [free[c].pop(0) for c in division.classes]
    return [machine_of[part] for part in division.part_of]


class _Search:
    """Loads of a division under moves of single sub-graphs."""

    def __init__(self, problem: DivisionProblem, part_of: Iterable[int]) -> None:
        self._problem = problem
        self._compute = problem.compute_us.tolist()
        self._send = [tensor.send_us.tolist() for tensor in problem.tensors]
        self._receive = [tensor.receive_us.tolist() for tensor in problem.tensors]
        self._classes = problem.machines
        self._scale = max(float(problem.compute_us[:, 0].sum()) / len(self._classes), 1e-9)
        self.restore(tuple(part_of))

    def restore(self, part_of: tuple[int, ...]) -> None:
        """Set the machine of each sub-graph, and compute all loads."""
        count = len(self._classes)
        self._part_of = list(part_of)
        self._loads = [0.0] * count
        self._held = [0.0] * count
        self._readers = [[0] * count for _ in self._problem.tensors]
        for node, part in enumerate(part_of):
            self._loads[part] += self._compute[node][self._classes[part]]
            self._held[part] += float(self._problem.bytes[node])
        for t, tensor in enumerate(self._problem.tensors):
            for consumer in tensor.consumers:
                self._readers[t][part_of[consumer]] += 1
            for part, us in self._times(t):
                self._loads[part] += us

    def state(self) -> tuple[int, ...]:
        """Machine of each sub-graph."""
        return tuple(self._part_of)

    def value(self) -> float:
        """Power mean of the loads."""
        return float(sum((load / self._scale) ** _POWER for load in self._loads) ** (1 / _POWER))

    def descend(self, nodes: Iterable[int], deadline: float) -> None:
        """Move sub-graphs while this improves the value; neighbours of moved ones come again."""
        todo = list(nodes)
        waiting = set(todo)
        while todo and time.monotonic() < deadline:
            node = todo.pop()
            waiting.discard(node)
            if self._improve(node):
                around = self._problem.predecessors[node] | self._problem.successors[node]
                for other in (*around, node):
                    if other not in waiting:
                        waiting.add(other)
                        todo.append(other)

    def kick(self, rng: random.Random) -> list[int]:
        """Move a few neighbours of the most loaded machine, or random ones, elsewhere."""
        heaviest = max(range(len(self._loads)), key=self._loads.__getitem__)
        mine = [node for node, part in enumerate(self._part_of) if part == heaviest]
        node = (
            rng.choice(mine) if mine and rng.random() < 0.7 else rng.randrange(len(self._part_of))
        )
        group = [node]
        for _ in range(rng.randrange(_KICKED)):
            last = group[-1]
            around = self._problem.predecessors[last] | self._problem.successors[last]
            if around:
                group.append(rng.choice(sorted(around)))
        target = rng.randrange(len(self._loads))
        kicked = []
        for one in dict.fromkeys(group):
            size = float(self._problem.bytes[one])
            if self._fits(one, target, size):
                self._move(one, target)
                kicked.append(one)
        neighbours = {
            other
            for one in kicked
            for other in self._problem.predecessors[one] | self._problem.successors[one]
        }
        return [*neighbours, *mine]

    def _improve(self, node: int) -> bool:
        """Move a sub-graph to its best machine; False if it is there."""
        home, value = self._part_of[node], self.value()
        best, least = home, value
        size = float(self._problem.bytes[node])
        for part in range(len(self._loads)):
            if part != home and self._fits(node, part, size):
                self._move(node, part)
                found = self.value()
                if found < least - 1e-12:
                    best, least = part, found
        self._move(node, best)
        return best != home

    def _fits(self, node: int, part: int, size: float) -> bool:
        if part == self._part_of[node]:
            return True
        limit = self._problem.limits[self._classes[part]]
        return self._held[part] + size <= limit * (1 + 1e-12)

    def _move(self, node: int, part: int) -> None:
        home = self._part_of[node]
        if home == part:
            return
        touched = (*self._problem.consumed[node], *self._problem.produced[node])
        for t in touched:
            for one, us in self._times(t):
                self._loads[one] -= us
        size = float(self._problem.bytes[node])
        self._held[home] -= size
        self._held[part] += size
        self._loads[home] -= self._compute[node][self._classes[home]]
        self._loads[part] += self._compute[node][self._classes[part]]
        self._part_of[node] = part
        for t in self._problem.consumed[node]:
            self._readers[t][home] -= 1
            self._readers[t][part] += 1
        for t in touched:
            for one, us in self._times(t):
                self._loads[one] += us

    def _times(self, t: int) -> list[tuple[int, float]]:
        """Times of a tensor at the machines that send and receive it."""
        home = self._part_of[self._problem.tensors[t].producer]
        away = [p for p, count in enumerate(self._readers[t]) if count and p != home]
        if not away:
            return []
        receive = self._receive[t]
        times = [(part, receive[self._classes[part]]) for part in away]
        return [(home, self._send[t][self._classes[home]]), *times]
