"""Merging of sub-graphs that some best division keeps together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layoutsel.planning.division import DivisionProblem, SentTensor, merged


def contracted(problem: DivisionProblem) -> tuple[DivisionProblem, tuple[int, ...]]:
    """Merge sub-graphs that take no time with a neighbour, without loss.

    A sub-graph that takes neither time nor memory joins its only consumer if it reads nothing, or
    its only producer if nobody reads it. Between one tensor that it reads and one that it makes, it
    joins the other end of the larger one, if that has no further consumer and so is never sent.

    Returns
    -------
    tuple
        The smaller problem, and the group of each sub-graph.
    """
    groups = tuple(range(problem.size))
    current = problem
    while True:
        pairs = list(_free(current))
        if not pairs:
            return current, groups
        into = list(range(current.size))
        touched: set[int] = set()
        for node, other in pairs:
            if not touched & {node, other}:
                into[node] = other
                touched |= {node, other}
        # A merged pair takes the later position: its producers come before, its consumers after.
        number = {g: i for i, g in enumerate(_ordered(current, into))}
        step = [number[into[node]] for node in range(current.size)]
        groups = tuple(step[group] for group in groups)
        current = merged(current, step)


def _free(problem: DivisionProblem) -> Iterator[tuple[int, int]]:
    """Yield sub-graphs that take nothing, each with the neighbour to join."""
    free = (problem.compute_us == 0).all(axis=1) & (problem.bytes == 0)
    for node in np.flatnonzero(free).tolist():
        reads = [problem.tensors[t] for t in problem.consumed[node]]
        makes = [problem.tensors[t] for t in problem.produced[node]]
        readers = problem.successors[node]
        if not reads and len(readers) == 1:
            yield node, next(iter(readers))
        elif len(reads) == 1 and (not makes or (_is_alone(reads[0]) and _fits(reads[0], makes))):
            yield node, reads[0].producer
        elif len(makes) == 1 and _is_alone(makes[0]) and _fits(makes[0], reads):
            yield node, next(iter(readers))


def _is_alone(tensor: SentTensor) -> bool:
    """True if a tensor has one consumer."""
    return len(tensor.consumers) == 1


def _fits(one: SentTensor, others: list[SentTensor]) -> bool:
    """True if there is one other tensor, which takes no longer anywhere."""
    return len(others) == 1 and _is_at_least(one, others[0])


def _is_at_least(one: SentTensor, other: SentTensor) -> bool:
    """True if a tensor takes as long as another, or longer, everywhere."""
    return bool((one.send_us >= other.send_us).all() and (one.receive_us >= other.receive_us).all())


def _ordered(problem: DivisionProblem, into: list[int]) -> list[int]:
    """Order the groups topologically."""
    from graphlib import TopologicalSorter

    before: dict[int, set[int]] = {group: set() for group in into}
    for tensor in problem.tensors:
        for consumer in tensor.consumers:
            if into[consumer] != into[tensor.producer]:
                before[into[consumer]].add(into[tensor.producer])
    return list(TopologicalSorter(before).static_order())
