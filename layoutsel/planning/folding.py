"""Reduction of problems of many devices, for lower bounds and for the search of plans.

Boundary prices grow with the square of the number of memories, and so do all solvers' tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layoutsel.cost.place import HOST, memory_name
from layoutsel.cost.tensor import Tensor
from layoutsel.planning.calls import memories_of
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from tvm_passes.decision import Decision, parse_placed_unit, placed_unit
from tvm_passes.devices import DeviceId

MOST_MEMORIES = 8
"""Maximum number of memories of a problem that solvers get unchanged."""

_Prices = Mapping[tuple[str, str], float]
"""Prices by (source, destination), microseconds."""


def relaxed_if_wide(problem: PlanningProblem) -> PlanningProblem | None:
    """Reduce a problem of too many memories by :func:`folded`; None if it is small enough."""
    if len(memories_of(problem)) <= MOST_MEMORIES or not _have_equal_layouts(problem):
        return None
    found = folded(problem)
    return found if len(memories_of(found)) <= MOST_MEMORIES else None


def folded(problem: PlanningProblem) -> PlanningProblem:
    """Copy the problem with only the first device of each kind, at the lowest price of any of them.

    Lower bounds on the copy hold for the problem: if the first device of its kind replaces each
    device of a plan, no price rises, and copies between devices of one kind vanish. A device of the
    copy stands for many, see :attr:`PlanningProblem.stands_for`. Equal decisions on different
    devices must have equal layouts.
    """
    devices = sorted({o.decision.device for node in problem.nodes for o in node.options})
    first: dict[tuple[str, str], DeviceId] = {}
    for device in devices:
        if memory_name(device) != HOST:
            first.setdefault((device.node, device.kind), device)
    into = {device: first.get((device.node, device.kind), device) for device in devices}
    memories = {memory_name(device): memory_name(other) for device, other in into.items()}
    stands_for: dict[str, int] = {}
    for memory, other in memories.items():
        count = problem.stands_for.get(memory, 1)
        stands_for[other] = stands_for.get(other, 0) + count
    return replace(
        problem,
        nodes=tuple(_folded_node(node, into) for node in problem.nodes),
        tensors=tuple(_folded_tensor(tensor, memories, into) for tensor in problem.tensors),
        stands_for={memory: count for memory, count in stands_for.items() if count > 1},
    )


def on_best_devices(problem: PlanningProblem) -> PlanningProblem:
    """Keep only candidates on the host and on the devices that compute most cheaply.

    Sub-graphs without such a candidate keep all.
    """
    memories = [memory for memory in memories_of(problem) if memory != HOST]
    cheapest = [_cheapest(node) for node in problem.nodes]
    sums = {
        memory: sum(costs.get(memory, min(costs.values())) for costs in cheapest)
        for memory in memories
    }
    kept = {HOST, *sorted(memories, key=lambda memory: (sums[memory], memory))[: MOST_MEMORIES - 1]}
    able = {
        node.id for node, costs in zip(problem.nodes, cheapest, strict=True) if kept & set(costs)
    }
    return problem.restrict(lambda node, option: node.id not in able or option.memory in kept)


def _cheapest(node: PricedSubgraph) -> dict[str, float]:
    """Compute the cost of the cheapest candidate in each memory, microseconds."""
    found: dict[str, float] = {}
    for option in node.options:
        found[option.memory] = min(option.cost_us, found.get(option.memory, option.cost_us))
    return found


def _have_equal_layouts(problem: PlanningProblem) -> bool:
    """True if equal decisions on different devices have the same layouts."""
    for node in problem.nodes:
        known: dict[Decision, tuple[object, object]] = {}
        for option in node.options:
            decision = replace(option.decision, index=0)
            layouts = option.in_layouts, option.out_layouts
            if known.setdefault(decision, layouts) != layouts:
                return False
    return True


def _folded_node(node: PricedSubgraph, into: Mapping[DeviceId, DeviceId]) -> PricedSubgraph:
    least: dict[Decision, Option] = {}
    for option in node.options:
        decision = option.decision.on(into[option.decision.device])
        other = least.get(decision)
        if other is None or option.cost_us < other.cost_us:
            least[decision] = replace(option, decision=decision)
    return replace(node, options=tuple(least.values()))


def _folded_tensor(
    tensor: Tensor, memories: Mapping[str, str], into: Mapping[DeviceId, DeviceId]
) -> Tensor:
    names = {unit for pair in tensor.crossing_us for unit in pair}
    units = {name: _folded_unit(name, into) for name in names}
    return replace(
        tensor,
        copy_us=_least(tensor.copy_us, memories),
        crossing_us=_least(tensor.crossing_us, units),
    )


def _folded_unit(name: str, into: Mapping[DeviceId, DeviceId]) -> str:
    unit, device = parse_placed_unit(name)
    other = into.get(device, device)
    return placed_unit(unit, other.node, other.index)


def _least(prices: _Prices, names: Mapping[str, str]) -> _Prices:
    found: dict[tuple[str, str], float] = {}
    for (source, destination), us in prices.items():
        pair = names.get(source, source), names.get(destination, destination)
        if pair[0] != pair[1]:
            found[pair] = min(us, found.get(pair, us))
    return found
