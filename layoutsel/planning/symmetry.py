"""Devices that can be exchanged for each other without a change of any price: solvers need one order of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from layoutsel.cost.place import HOST, memory_name
from layoutsel.cost.tensor import Tensor
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.resources import HostDriven
from tvm_passes.decision import parse_placed_unit, placed_unit
from tvm_passes.devices import DeviceId

Rename = Callable[[str], str]


def interchangeable(problem: PlanningProblem) -> tuple[tuple[DeviceId, ...], ...]:
    """Find the groups of two and more devices that can be exchanged, each in order.

    Every permutation of a group's devices turns a plan into one of the same prices.
    """
    named = {option.memory: option for node in problem.nodes for option in node.options}
    named.pop(HOST, None)  # the model's inputs and results lie there
    groups: list[list[DeviceId]] = []
    for device in sorted(option.decision.device for option in named.values()):
        alike = (group for group in groups if _can_exchange(problem, group[0], device))
        group = next(alike, None)
        if group is None:
            groups.append([device])
        else:
            group.append(device)
    return tuple(tuple(group) for group in groups if len(group) > 1)


def twins(problem: PlanningProblem) -> tuple[tuple[DeviceId, ...], ...]:
    """Find the groups whose exchange changes no schedule either; none where resources are not known to be alike."""
    return interchangeable(problem) if isinstance(problem.resources, HostDriven) else ()


def without_twins(problem: PlanningProblem) -> PlanningProblem:
    """Copy the problem with one device of each interchangeable group; its least sum of costs stays the same.

    All work of a group costs as much on one of its devices, and copies within the group vanish. This holds for
    devices of one unit only: several units on one device would hand over to each other.
    """
    groups = interchangeable(problem)
    if not groups:
        return problem
    units: dict[DeviceId, set[str]] = {}
    for node in problem.nodes:
        for option in node.options:
            units.setdefault(option.decision.device, set()).add(option.decision.unit)
    others = {one for group in groups if len(units[group[0]]) == 1 for one in group[1:]}
    return problem.restrict(lambda _, option: option.decision.device not in others)


def _can_exchange(problem: PlanningProblem, one: DeviceId, other: DeviceId) -> bool:
    """True if the problem stays the same when two devices get each other's names."""
    if one.kind != other.kind:
        return False
    ends = {one: other, other: one}
    memories = {memory_name(a): memory_name(b) for a, b in ends.items()}

    def unit(name: str) -> str:
        bare, device = parse_placed_unit(name)
        device = ends.get(device, device)
        return placed_unit(bare, device.node, device.index)

    return all(_keeps_node(node, ends) for node in problem.nodes) and all(
        _keeps_tensor(tensor, lambda name: memories.get(name, name), unit)
        for tensor in problem.tensors
    )


def _keeps_node(node: PricedSubgraph, ends: Mapping[DeviceId, DeviceId]) -> bool:
    found = {option.decision: _priced(option) for option in node.options}
    moved = (
        (decision.on(ends[decision.device]), priced)
        for decision, priced in found.items()
        if decision.device in ends
    )
    return all(found.get(decision) == priced for decision, priced in moved)


def _priced(option: Option) -> tuple[object, ...]:
    return option.cost_us, option.in_layouts, option.out_layouts


def _keeps_tensor(tensor: Tensor, memory: Rename, unit: Rename) -> bool:
    kinds = ((tensor.copy_us, memory), (tensor.crossing_us, unit))
    return all(
        prices.get((rename(source), rename(destination))) == us
        for prices, rename in kinds
        for (source, destination), us in prices.items()
    )
