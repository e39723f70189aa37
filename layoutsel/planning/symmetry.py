"""Interchangeable devices: their exchange changes no price, so that solvers need only one order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from layoutsel.cost.place import HOST, memory_name
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.resources import HostDriven
from tvm_passes.decision import parse_placed_unit, placed_unit
from tvm_passes.devices import DeviceId

Rename = Callable[[str], str]
"""Function that renames units or memories."""
_Prices = Mapping[tuple[str, str], float]
"""Prices by (source, destination), microseconds."""
_Boundaries = dict[str, dict[tuple[str, str], float]]
"""Boundaries of one kind of a tensor with their prices, by either end."""
_FIRST = DeviceId(index=0)
"""Device that replaces those of decisions, to compare decisions without their devices."""


def interchangeable(problem: PlanningProblem) -> tuple[tuple[DeviceId, ...], ...]:
    """Find the groups of two or more interchangeable devices, each in order.

    Every permutation of a group's devices turns a plan into one with the same prices.
    """
    offers = _offers(problem)
    alike: dict[object, list[DeviceId]] = {}
    for device in sorted(offers):
        alike.setdefault((device.kind, offers[device]), []).append(device)
    if all(len(devices) == 1 for devices in alike.values()):
        return ()
    tensors = [(_by_end(tensor.copy_us), _by_end(tensor.crossing_us)) for tensor in problem.tensors]
    groups: list[list[DeviceId]] = []
    for devices in alike.values():
        found: list[list[DeviceId]] = []
        for device in devices:
            fits = (group for group in found if _can_exchange(tensors, group[0], device))
            group = next(fits, None)
            if group is None:
                found.append([device])
            else:
                group.append(device)
        groups += found
    return tuple(tuple(group) for group in sorted(groups) if len(group) > 1)


def twins(problem: PlanningProblem) -> tuple[tuple[DeviceId, ...], ...]:
    """Find the groups of devices whose exchange changes no schedule either.

    They are known only if one host drives all devices; otherwise there are none.
    """
    return interchangeable(problem) if isinstance(problem.resources, HostDriven) else ()


def without_twins(problem: PlanningProblem) -> PlanningProblem:
    """Copy the problem with one device of each interchangeable group; the least sum stays the same.

    All work of a group costs the same on one of its devices, and copies within the group vanish.
    Groups with candidates of several units stay: on one device, hand-overs between these units
    would replace the copies.
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


def _offers(problem: PlanningProblem) -> dict[DeviceId, object]:
    """Describe the candidates of each device with its own memory, equal ones equally."""
    found: dict[DeviceId, list[object]] = {}
    for number, node in enumerate(problem.nodes):
        for option in node.options:
            if option.memory != HOST:  # the host holds the model's inputs and results
                decision = option.decision.on(_FIRST)
                offer = number, decision, option.cost_us, option.in_layouts, option.out_layouts
                found.setdefault(option.decision.device, []).append(offer)
    return {device: frozenset(offers) for device, offers in found.items()}


def _by_end(prices: _Prices) -> _Boundaries:
    """Map each end to its boundaries."""
    found: _Boundaries = {}
    for pair, us in prices.items():
        for end in pair:
            found.setdefault(end, {})[pair] = us
    return found


def _can_exchange(
    tensors: Sequence[tuple[_Boundaries, _Boundaries]], one: DeviceId, other: DeviceId
) -> bool:
    """True if all prices of boundaries stay the same when two devices exchange their names."""
    memories = {memory_name(one): memory_name(other), memory_name(other): memory_name(one)}

    def unit(name: str) -> str:
        bare, device = parse_placed_unit(name)
        device = {one: other, other: one}.get(device, device)
        return placed_unit(bare, device.node, device.index)

    return all(
        _keeps(copies, memories, lambda name: memories.get(name, name))
        and _keeps(crossings, [name for name in crossings if unit(name) != name], unit)
        for copies, crossings in tensors
    )


def _keeps(boundaries: _Boundaries, ends: Iterable[str], rename: Rename) -> bool:
    """True if each boundary at the `ends` costs as much as the one with both names changed."""
    return all(
        boundaries.get(rename(source), {}).get((rename(source), rename(destination))) == us
        for end in ends
        for (source, destination), us in boundaries.get(end, {}).items()
    )
