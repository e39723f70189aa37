"""Lower bounds on the makespans of all continuations of a partial schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layoutsel.cost.place import OUTSIDE, Place
from layoutsel.cost.tensor import Tensor
from layoutsel.planning.makespan_bound import bringing_us
from layoutsel.planning.numbered_calls import NOBODY, NumberedStep
from layoutsel.planning.problem import Option, PlanningProblem
from tvm_passes.decision import SubgraphId

Numbers = Mapping[SubgraphId | None, int]
"""Number of each sub-graph; :data:`NOBODY` for None, which stands for the inputs of the model."""
Times = Sequence[Sequence[float]]
"""Times by two numbers, microseconds."""

_ROUNDS = 60
"""Number of steps that improve the weights of resources."""


@dataclass(frozen=True)
class _Input:
    """A tensor that a sub-graph reads."""

    producer: int
    """Number of the producer; :data:`NOBODY` for an input of the model."""
    bringing_us: Times
    """Time of all boundaries, by candidates of producer and consumer, microseconds."""


class Paths:
    """Longest paths from the results of a partial schedule to the end.

    Every sub-graph may choose its candidate for each path, and all resources are free.
    """

    def __init__(
        self,
        problem: PlanningProblem,
        options: Sequence[Sequence[Option]],
        numbers: Numbers,
        works: Sequence[Sequence[NumberedStep]],
    ) -> None:
        self.inputs: list[list[_Input]] = [[] for _ in options]
        """Tensors that each sub-graph reads."""
        self.handing_us: list[list[float] | None] = [None] * len(options)
        """Time to hand results of the model over, by sub-graph and candidate, microseconds."""
        readers: list[list[tuple[int, Times]]] = [[] for _ in options]
        for tensor in problem.tensors:
            producer = numbers[tensor.producer]
            sources = [OUTSIDE]
            if producer != NOBODY:
                sources = [option.made[tensor.output_index] for option in options[producer]]
            for use in tensor.uses:
                if use.consumer is not None:
                    consumer = numbers[use.consumer]
                    places = [option.wanted[use.input_index] for option in options[consumer]]
                    times = _bringing(problem, tensor, sources, places)
                    self.inputs[consumer].append(_Input(producer, times))
                    if producer != NOBODY:
                        readers[producer].append((consumer, times))
                elif producer != NOBODY:
                    known = self.handing_us[producer] or [0.0] * len(sources)
                    handed = [bringing_us(problem, tensor, source, OUTSIDE) for source in sources]
                    self.handing_us[producer] = list(map(max, known, handed))
        self.left_us: list[list[float]] = [[] for _ in options]
        """Least time from the start of each sub-graph, by candidate, to the end, microseconds."""
        for number in reversed(range(len(options))):
            behind = list(self.handing_us[number] or [0.0] * len(options[number]))
            for consumer, times in readers[number]:
                left = self.left_us[consumer]
                for made, row in enumerate(times):
                    path = min(us + more for us, more in zip(row, left, strict=True))
                    behind[made] = max(behind[made], path)
            self.left_us[number] = [
                work.duration_us + us for work, us in zip(works[number], behind, strict=True)
            ]


def _bringing(
    problem: PlanningProblem, tensor: Tensor, sources: Sequence[Place], places: Sequence[Place]
) -> Times:
    return [[bringing_us(problem, tensor, s, place) for place in places] for s in sources]


Weights = tuple[tuple[int, float], ...]
"""Weights of some resources, by number; their sum is 1."""


@dataclass(frozen=True)
class Loads:
    """Least remaining work on weighted resources.

    The last resource is free no earlier than the weighted mean over all resources. The mean rises
    with each remaining sub-graph by at least the weighted work of some candidate.
    """

    rows: tuple[Weights, ...]
    """Weights: each resource alone, and those with the largest bound at the start."""
    least_us: tuple[tuple[float, ...], ...]
    """Least weighted work of each sub-graph, by row, microseconds."""

    @classmethod
    def of(cls, busy_us: Sequence[Sequence[Mapping[int, float]]], count: int) -> Loads:
        """Make the rows for the candidates' work on `count` resources."""
        rows: list[Weights] = [((number, 1.0),) for number in range(count)]
        if any(len(candidates) > 1 for candidates in busy_us):
            rows.append(_best_weights(busy_us, count))
        least = [tuple(_least_us(node, row) for row in rows) for node in busy_us]
        useful = [k for k in range(len(rows)) if any(us[k] for us in least)]
        return cls(
            tuple(rows[k] for k in useful), tuple(tuple(us[k] for k in useful) for us in least)
        )

    @property
    def total_us(self) -> tuple[float, ...]:
        """Least work of all sub-graphs, by row, microseconds."""
        return tuple(map(sum, zip(*self.least_us, strict=True)))

    def bound_us(self, free_us: Sequence[float], left_us: Sequence[float]) -> float:
        """Compute the latest mean over all rows, microseconds.

        Arguments are the times at which resources are free, and the remaining work by row.
        """
        return max(
            (
                left + sum(weight * free_us[number] for number, weight in row)
                for row, left in zip(self.rows, left_us, strict=True)
            ),
            default=0.0,
        )


def _least_us(candidates: Sequence[Mapping[int, float]], weights: Weights) -> float:
    return min(_weighted_us(busy_us, weights) for busy_us in candidates)


def _weighted_us(busy_us: Mapping[int, float], weights: Weights) -> float:
    return sum(weight * busy_us.get(number, 0.0) for number, weight in weights)


def _best_weights(busy_us: Sequence[Sequence[Mapping[int, float]]], count: int) -> Weights:
    """Find weights under which the least work is nearly maximal, by multiplicative updates."""
    weights: Weights = tuple((number, 1 / count) for number in range(count))
    best, best_us = weights, -math.inf
    for round_ in range(_ROUNDS):
        chosen = [min(node, key=lambda busy: _weighted_us(busy, weights)) for node in busy_us]
        loads = [sum(busy.get(number, 0.0) for busy in chosen) for number in range(count)]
        bound_us = sum(weight * loads[number] for number, weight in weights)
        if bound_us > best_us:
            best, best_us = weights, bound_us
        rate = 2.0 / (max(loads, default=0.0) + 1e-9) / math.sqrt(1 + round_)
        raised = [(number, weight * math.exp(rate * loads[number])) for number, weight in weights]
        total = sum(weight for _, weight in raised)
        weights = tuple((number, weight / total) for number, weight in raised)
    return tuple((number, weight) for number, weight in best if weight > 1e-6)
