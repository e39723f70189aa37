"""Peak rates of a machine from a bundle's results: those of probes, or of faster candidates."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from layoutsel.core.precision import F32
from layoutsel.core.workload import Workload
from layoutsel.cost.device_peaks import DevicePeaks
from layoutsel.cost.links import DeviceLink, Links
from layoutsel.cost.model import CROSSING
from layoutsel.cost.peaks import MachinePeaks
from layoutsel.cost.samples import MachineProfile
from layoutsel.device.results import Results
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import parse_placed_unit
from tvm_passes.devices import HOST, HOST_DEVICE, DeviceId
from tvm_passes.precisions import PRECISIONS

Peaks = TypeVar("Peaks", MachinePeaks, DevicePeaks, DeviceLink)
"""Peak rates of a host, a device or a link."""

_LEVEL_2 = 1 << 20
"""Size of a second-level cache if the machine does not report it, bytes."""
_SLOWEST = 1e-3
"""Rate in G/s, or time in microseconds, if no measurement shows it."""


def machine_profile(found: Results) -> MachineProfile:
    """Make the profile of the machine that measured a bundle, and of its devices."""
    machine = found.machine
    return MachineProfile(
        machine=machine.described,
        peaks=MachinePeaks(
            threads=found.threads,
            gflops=max(machine.gflops, _attained(found, HOST)),
            cache_gbps=machine.cache_gbps,
            memory_gbps=machine.memory_gbps,
            cache_bytes=machine.described.caches.get("L2", _LEVEL_2) * found.threads,
        ),
        devices={name: _device_peaks(found, name) for name in machine.devices},
        links=tuple(_links(found)),
    )


def combined(known: MachineProfile, found: MachineProfile) -> MachineProfile:
    """Merge two profiles of one machine; the higher rates apply."""
    devices = dict(found.devices)
    replaced = set()
    for name, device in known.devices.items():
        if name in devices and devices[name].name != device.name:
            replaced.add(DeviceId.named(name))  # the device was exchanged
            continue
        devices[name] = _better(device, devices.get(name, device))
    links = Links.of(found.links).table
    for link in known.links:
        pair = link.source, link.destination
        if replaced.isdisjoint(pair):
            links = {**links, pair: _better(link, links.get(pair, link))}
    return MachineProfile(
        machine=found.machine,
        peaks=_better(known.peaks, found.peaks),
        devices=devices,
        links=tuple(links.values()),
    )


def _better(one: Peaks, other: Peaks) -> Peaks:
    """Copy `other` with the higher rates and lower times of both."""
    names = [field.name for field in fields(one)]
    best = {name: max for name in names if name.endswith(("gbps", "gflops"))}
    best |= {name: min for name in names if name.endswith("_us")}
    chosen: dict[str, Any] = {}
    for name, of in best.items():
        known = [value for value in (getattr(one, name), getattr(other, name)) if value is not None]
        chosen[name] = of(known, default=None)
    return replace(other, **chosen)


def _device_peaks(found: Results, name: str) -> DevicePeaks:
    """Peak rates of a device, as far as its measurements show them."""
    device = found.machine.devices[name]
    times_us = [us for _, us in _timed(found, name)]
    return DevicePeaks(
        name=device.identity,
        compute_units=device.compute_units,
        clock_mhz=device.clock_mhz,
        gflops=_attained(found, name),
        half_gflops=max(
            (
                work.flops / us / 1e3
                for precision in PRECISIONS.values()
                if precision.on_matrix_units
                for work, us in _timed(found, name, precision.name)
            ),
            default=None,
        ),
        memory_gbps=max(
            (
                (work.weight_bytes + work.activation_bytes) / us / 1e3
                for work, us in _timed(found, name)
            ),
            default=_SLOWEST,
        ),
        launch_us=max(min(times_us, default=_SLOWEST), _SLOWEST),
        target=device.target,
    )


def _attained(found: Results, name: str) -> float:
    return max((work.flops / us / 1e3 for work, us in _timed(found, name)), default=_SLOWEST)


def _timed(found: Results, name: str, precision: str = F32) -> Iterator[tuple[Workload, float]]:
    """Workloads that ran in a precision on a device, with their microseconds."""
    works = {work.key: work for work in found.workloads}
    for one in found.candidates:
        decision = one.decision
        is_there = decision.unit in BACKENDS and decision.device.target_name == name
        if not is_there or decision.precision != precision:
            continue
        if one.timing is not None and one.timing.us > 0 and one.key in works:
            yield works[one.key], one.timing.us


def _links(found: Results) -> Iterator[DeviceLink]:
    """Links between the host and the devices, and between devices where copies were measured.

    A direction without measurements is assumed to equal the other one.
    """
    devices = sorted(map(DeviceId.named, found.machine.devices))
    copies = _copies(found, {HOST_DEVICE, *devices})
    of_host = [pair for one in devices for pair in ((HOST_DEVICE, one), (one, HOST_DEVICE))]
    for source, destination in dict.fromkeys([*of_host, *copies]):
        back = copies.get((destination, source), [])
        latency_us, gbps = _line(copies.get((source, destination)) or back)
        yield DeviceLink(source=source, destination=destination, latency_us=latency_us, gbps=gbps)


def _copies(
    found: Results, devices: Collection[DeviceId]
) -> dict[tuple[DeviceId, DeviceId], list[tuple[int, float]]]:
    """Bytes and microseconds of measured copies between `devices`, by source and destination."""
    copies: dict[tuple[DeviceId, DeviceId], list[tuple[int, float]]] = {}
    for one in found.boundaries:
        if one.kind != CROSSING or one.timing is None:
            continue
        source, destination = (parse_placed_unit(end)[1] for end in (one.source, one.destination))
        if source != destination and {source, destination} <= set(devices):
            point = (one.tensor.bytes, one.timing.us)
            copies.setdefault((source, destination), []).append(point)
    return copies


def _line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Microseconds of the smallest copy, and GB/s beyond it, from (bytes, microseconds)."""
    if not points:
        return _SLOWEST, _SLOWEST
    (least, latency_us), (most, us) = min(points), max(points)
    gbps = (most - least) / max(us - latency_us, 1e-3) / 1e3  # 0 where one size was measured
    return max(latency_us, _SLOWEST), max(gbps, _SLOWEST)
