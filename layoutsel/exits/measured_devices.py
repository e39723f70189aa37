"""Costs of stages on devices, by requests to them and to the host on this machine."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from layoutsel.device.tensors import copied, random_tensor
from layoutsel.device.virtual_machine import synchronise
from layoutsel.exits.arrangement import Arrangement, ExitCosts, WorkerKind
from layoutsel.exits.corun import corun_slowdown
from layoutsel.exits.exit_code import ExitCode
from layoutsel.exits.measured_costs import late_requests, on_one
from layoutsel.exits.request import Tensor
from layoutsel.exits.simulate import BRANCH, TRUNK
from layoutsel.exits.stage_times import Stages, stage_times
from layoutsel.runtime.compiled import CompiledModel
from tvm_passes.devices import HOST_DEVICE, DeviceId

_COPIES, _UNTIMED = 25, 5
"""Number of copies of each tap, and of the first of them that do not count."""


def with_devices(costs: ExitCosts, code: ExitCode) -> ExitCosts:
    """Replace the costs of devices by those of requests on this machine.

    The times of stages are those of requests to the device alone, whose tensors stay there. Each
    tap is copied from the device to the host, which holds up the trunk there, or from the host to
    the device, which is part of the hand-over. Otherwise the measurements are those of
    :func:`layoutsel.exits.measured_costs.measured`.

    Parameters
    ----------
    costs
        Costs, measured for the workers of the host.
    code
        Code of the network.
    """
    alone = {kind.name: _alone(costs, kind, code) for kind in costs.workers if kind.device}
    costs = replace(
        costs,
        trunk_us=dict(costs.trunk_us) | {name: one[0] for name, one in alone.items()},
        branch_us=dict(costs.branch_us) | {name: one[1] for name, one in alone.items()},
    )
    pairs = {f"{kind.name}>{other.name}": (kind, other) for kind, other in _pairs(costs)}
    like = {name: _likeness(*pair) for name, pair in pairs.items()}
    distinct = {like[name]: pair for name, pair in pairs.items()}
    slower = {key: _slowdown(code, *pair) for key, pair in distinct.items()}
    both = {key: code.of(_divided(costs, *pair)) for key, pair in distinct.items()}
    copies = {
        key: tap_copies_us(both[key], len(costs.needs), *pair) for key, pair in distinct.items()
    }
    from_device = {name for name, (kind, _) in pairs.items() if kind.device}
    to_device = {name: copies[key] for name, key in like.items() if name not in from_device}
    costs = replace(
        costs,
        slowdown=dict(costs.slowdown)
        | {name.replace(">", "|"): slower[key] for name, key in like.items()},
        copy_us={name: copies[like[name]] for name in pairs if name in from_device},
        handover_us=dict(costs.handover_us) | to_device,
    )
    late = {key: late_requests(costs, *pair, both[key]) for key, pair in distinct.items()}
    free = (0.0,) * len(costs.needs)
    handovers = {
        name: tuple(us + late[key].handover_us for us in to_device.get(name, free))
        for name, key in like.items()
    }
    return replace(
        costs,
        calls_us={name: late[key].call_us for name, key in like.items()},
        handover_us=dict(costs.handover_us) | handovers,
    )


def tap_copies_us(
    compiled: CompiledModel, taps: int, kind: WorkerKind, other: WorkerKind
) -> tuple[float, ...]:
    """Median times of copies of each tap from one worker's memory to another's, microseconds.

    Parameters
    ----------
    compiled
        Code for a trunk on the first worker and branches on the other.
    taps
        Number of taps.
    kind, other
        The two workers.
    """
    source, there = (
        DeviceId.parse(one.device) if one.device else HOST_DEVICE for one in (kind, other)
    )
    destination = there if source.is_host else HOST_DEVICE  # also on the way to another device
    trunk = [one for one in compiled.stages if one.name.startswith(TRUNK)]
    made = {tensor.name: tensor for stage in trunk for tensor in stage.outputs}
    branches = {one.name: one.inputs for one in compiled.stages}
    found = []
    for tap in range(taps):
        read = [made[one.name] for one in branches.get(f"{BRANCH}{tap}", ()) if one.name in made]
        tensors = [random_tensor(one.shape, one.dtype, 0, source) for one in read]
        times_us = [_copying_us(tensors, destination) for _ in range(_COPIES)]
        found.append(statistics.median(times_us[_UNTIMED:]))
    return tuple(found)


def _copying_us(tensors: Sequence[Tensor], destination: DeviceId) -> float:
    """Time of one copy of some tensors, microseconds."""
    start_s = time.perf_counter()
    made = [copied(tensor, destination) for tensor in tensors]
    synchronise([destination])
    us = 1e6 * (time.perf_counter() - start_s)
    return us if made else 0.0


def _alone(costs: ExitCosts, kind: WorkerKind, code: ExitCode) -> tuple[Stages, Stages]:
    """Times of the stages on a device, by requests to it alone."""
    own = Arrangement(trunk=kind.name, branches=(kind.name,) * len(costs.needs))
    found = on_one(costs, kind, code.of(own))
    left_us = {asked: max(0.0, us - costs.request_us) for asked, us in found.times_us}
    return stage_times(costs, kind.name, left_us)


def _pairs(costs: ExitCosts) -> Iterator[tuple[WorkerKind, WorkerKind]]:
    """Yield the pairs of workers with a device that may run at the same time."""
    for kind, other in itertools.permutations(costs.workers, 2):
        if (kind.device or other.device) and kind.cores + other.cores <= costs.cores:
            yield kind, other


def _likeness(kind: WorkerKind, other: WorkerKind) -> tuple[str | int, str | int]:
    """Key that pairs of equal workers share."""
    return (
        kind.name if kind.device else kind.threads,
        other.name if other.device else other.threads,
    )


def _divided(costs: ExitCosts, kind: WorkerKind, other: WorkerKind) -> Arrangement:
    return Arrangement(trunk=kind.name, branches=(other.name,) * len(costs.needs))


def _slowdown(code: ExitCode, kind: WorkerKind, other: WorkerKind) -> float:
    own, theirs = (
        code.of(Arrangement(trunk=one.name, branches=(one.name,) * len(code.found.costs.needs)))
        for one in (kind, other)
    )
    return corun_slowdown(kind, own, other, theirs)
