"""Ideals of a network: sets of sub-graphs that contain all producers of their members' inputs.

Contiguous divisions cut a network between one ideal and a larger one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np

from layoutsel.planning.division import DivisionProblem


def all_ideals(problem: DivisionProblem, most: int) -> np.ndarray | None:
    """List all ideals, the smallest first, (ideals, sub-graphs) booleans.

    None if there are more than `most`.
    """
    needs = [sum(1 << one for one in before) for before in problem.predecessors]
    ready = sum(1 << node for node, need in enumerate(needs) if not need)
    known = {0: ready}
    layer = [0]
    while layer:
        following: dict[int, int] = {}
        for ideal in layer:
            for node in _bits(known[ideal]):
                larger = ideal | 1 << node
                if larger not in following:
                    opened = sum(
                        1 << other
                        for other in problem.successors[node]
                        if not needs[other] & ~larger
                    )
                    following[larger] = known[ideal] & ~(1 << node) | opened
        known |= following
        if len(known) > most:
            return None
        layer = list(following)
    return np.array([_members(ideal, problem.size) for ideal in known])


def some_ideals(problem: DivisionProblem, most: int, *, seed: int = 0) -> np.ndarray:
    """List the prefixes of several topological orders, the smallest first, at most `most`.

    Beyond it, those stay that send least to the rest.
    """
    rng = random.Random(seed)
    orders = [list(range(problem.size)), *(_depth_first(problem, None) for _ in range(1))]
    while len(orders) * problem.size < most:
        orders.append(_depth_first(problem, rng))
    found = {0, (1 << problem.size) - 1}
    for order in orders:
        ideal = 0
        prefixes = [ideal := ideal | 1 << node for node in order]
        found.update(prefixes)
    members = np.array([_members(ideal, problem.size) for ideal in found])
    if len(members) > most:
        sent = sent_us(problem, members)
        sent[members.sum(axis=1) % problem.size == 0] = -1.0  # the empty and the whole ideal
        members = members[np.argsort(sent, kind="stable")[:most]]
    return members[np.argsort(members.sum(axis=1), kind="stable")]


def narrow_order(problem: DivisionProblem) -> list[int]:
    """Find a topological order with few live tensors: the given one, or producers just in time."""
    orders = [list(range(problem.size)), _postorder(problem), _depth_first(problem, None)]
    return min(orders, key=lambda order: _width(problem, order))


def _postorder(problem: DivisionProblem) -> list[int]:
    """Order each sub-graph directly after its producers, which come in the same way."""
    order: list[int] = []
    seen: set[int] = set()
    for last in range(problem.size):
        stack = [(last, False)] if not problem.successors[last] else []
        while stack:
            node, is_open = stack.pop()
            if is_open:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack += [(one, False) for one in sorted(problem.predecessors[node], reverse=True)]
    return order


def _width(problem: DivisionProblem, order: Sequence[int]) -> float:
    """Sum up the states of the live tensors, if each has four."""
    left = [len(tensor.consumers) for tensor in problem.tensors]
    live, total = 0, 0.0
    for node in order:
        for t in problem.consumed[node]:
            left[t] -= 1
            live -= left[t] == 0
        live += len(problem.produced[node])
        total += 4.0 ** min(live, 100)
    return total


def sent_us(problem: DivisionProblem, members: np.ndarray) -> np.ndarray:
    """Compute the time of sending what each ideal makes for the rest, (ideals,), microseconds."""
    found = np.zeros(len(members))
    for tensor in problem.tensors:
        is_sent = members[:, tensor.producer] & ~members[:, list(tensor.consumers)].all(axis=1)
        found[is_sent] += tensor.send_us[0]
    return found


def _depth_first(problem: DivisionProblem, rng: random.Random | None) -> list[int]:
    """Order topologically, one branch after another; in random order of the branches with `rng`."""
    left = [len(before) for before in problem.predecessors]
    stack = [node for node in reversed(range(problem.size)) if not left[node]]
    if rng is not None:
        rng.shuffle(stack)
    order = []
    while stack:
        node = stack.pop()
        order.append(node)
        opened = []
        for other in sorted(problem.successors[node], reverse=True):
            left[other] -= 1
            if not left[other]:
                opened.append(other)
        if rng is not None:
            rng.shuffle(opened)
        stack += opened
    return order


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _members(ideal: int, size: int) -> np.ndarray:
    raw = np.frombuffer(ideal.to_bytes((size + 7) // 8, "little"), dtype=np.uint8)
    return np.unpackbits(raw, bitorder="little", count=size).astype(bool)
