"""Workers on devices: which ones this machine has, and the plan of a network for one of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from onnx import ModelProto

import layoutsel
from layoutsel.exits.arrangement import WorkerKind
from layoutsel.planning.plan import Plan
from layoutsel.units.base import select
from tvm_passes.decision import SubgraphId, placed_unit
from tvm_passes.devices import CPU, DeviceId, kind_of_unit
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)

CANCEL_WITHIN_US = 1000.0
"""Default time in which a cancelled device ends the work in its queue, microseconds."""
MOST_DEVICES = 2
"""Largest number of devices of one unit: one for the trunk, and one for branches."""


def divided_units(
    units: Sequence[str] | None,
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Divide units into those of the host, None for the default ones, and those of devices."""
    if units is None:
        return None, ()
    of_devices = tuple(unit for unit in units if kind_of_unit(unit) != CPU)
    of_host = tuple(unit for unit in units if unit not in of_devices)
    return of_host or None, of_devices


def device_workers(units: Iterable[str]) -> tuple[WorkerKind, ...]:
    """List the workers on devices of some units, such as ``opencl-0``.

    Their limit of work in flight is that of one sub-graph; see :func:`limited`.

    Raises
    ------
    UnitUnavailable
        If this machine has no device of a unit.
    """
    return tuple(
        WorkerKind(
            name=f"{name}-{device.index}",
            unit=name,
            threads=1,
            cores=0,  # its thread sleeps while the device computes
            device=str(device),
            in_flight=1,
        )
        for name, unit in select(tuple(units)).items()
        for device in unit.backend.devices()[:MOST_DEVICES]
    )


def device_plan(
    scored: ModelProto, kind: WorkerKind, units: Sequence[str] | None, **options: Any
) -> Plan | None:
    """Plan a network with every sub-graph on a device that the device can compute.

    The others, if any, are on the host within the same stages. None, with a warning, if the device
    can compute none of them.

    Parameters
    ----------
    scored
        The network.
    kind
        Worker on the device.
    units
        Units of the host; the default ones if None.
    **options
        Further options of :func:`layoutsel.plan`.
    """
    device = DeviceId.parse(kind.device)
    unit = placed_unit(kind.unit, device.node, device.index)
    every = (*(units or select()), kind.unit)
    able = tuple(
        _able(layoutsel.plan(scored, units=every, **{**options, "cost": "roofline"}), kind)
    )
    if not able:
        logger.warning("the device %s can compute no sub-graph of the network", kind.device)
        return None
    pins = [f"{re.escape(id_)}={unit}" for id_ in able]
    try:
        return layoutsel.plan(scored, units=every, pins=pins, **options)
    except LayoutselError as error:
        logger.warning("the device %s is left out: %s", kind.device, error)
        return None


def _able(plan: Plan, kind: WorkerKind) -> Iterator[SubgraphId]:
    """Yield the sub-graphs of which the unit of a worker has a candidate."""
    for subgraph in plan.subgraphs:
        found = (subgraph.decision, *(one.decision for one in subgraph.alternatives))
        if any(decision.unit == kind.unit for decision in found):
            yield subgraph.id


def limited(kind: WorkerKind, stages: Iterable[Sequence[float]], within_us: float) -> WorkerKind:
    """Copy a worker with the largest limit of work in flight that ends within a time.

    Parameters
    ----------
    kind
        Worker on a device; others are returned as they are.
    stages
        Predicted times of the sub-graphs of its stages, microseconds. The queue is empty between
        two stages.
    within_us
        Time of any sub-graphs in a row that may be in flight, microseconds. One sub-graph always
        may be.
    """
    if not kind.device:
        return kind
    reached = [list(accumulate(times, initial=0.0)) for times in stages]
    longest = max((len(one) - 1 for one in reached), default=1)
    most = next((n for n in range(longest, 1, -1) if _longest_us(reached, n) <= within_us), 1)
    return replace(kind, in_flight=most)


def _longest_us(reached: Iterable[Sequence[float]], count: int) -> float:
    """Longest time of `count` sub-graphs in a row, of the times reached after each of a stage."""
    return max(
        us_after - us[max(0, place - count)] for us in reached for place, us_after in enumerate(us)
    )
