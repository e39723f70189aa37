"""What a machine can do, as its results tell: what was measured there, and the most that a candidate attained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, TypeVar

from layoutsel.building.boundaries import HOST_UNIT
from layoutsel.core.precision import BF16, F32
from layoutsel.core.workload import Workload
from layoutsel.cost.device_peaks import DevicePeaks
from layoutsel.cost.peaks import MachinePeaks
from layoutsel.cost.samples import MachineProfile
from layoutsel.device.results import Results
from tvm_passes.backends import BACKENDS
from tvm_passes.devices import HOST

Peaks = TypeVar("Peaks", MachinePeaks, DevicePeaks)

_LEVEL_2 = 1 << 20
"""Bytes of a second-level cache that a machine does not tell of."""
_SLOWEST = 1e-3
"""A rate in G/s, or microseconds, where nothing was measured that tells."""


def machine_profile(found: Results) -> MachineProfile:
    """The machine of `found` with its peaks and those of its devices."""
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
        devices={kind: _device_peaks(found, kind) for kind in machine.devices},
    )


def combined(known: MachineProfile, found: MachineProfile) -> MachineProfile:
    """What both tell of one machine: it can do at least the better of the two."""
    devices = dict(found.devices)
    for unit, device in known.devices.items():
        if unit in devices and devices[unit].name != device.name:
            continue  # another one by now
        devices[unit] = _better(device, devices.get(unit, device))
    return MachineProfile(
        machine=found.machine, peaks=_better(known.peaks, found.peaks), devices=devices
    )


def _better(one: Peaks, other: Peaks) -> Peaks:
    """The higher rates and the lower times of two peaks; the rest is of `other`."""
    names = [field.name for field in fields(one)]
    best = {name: max for name in names if name.endswith(("gbps", "gflops"))}
    best |= {name: min for name in names if name.endswith("_us")}
    chosen: dict[str, Any] = {}
    for name, of in best.items():
        known = [value for value in (getattr(one, name), getattr(other, name)) if value is not None]
        chosen[name] = of(known, default=None)
    return replace(other, **chosen)


def _device_peaks(found: Results, kind: str) -> DevicePeaks:
    """Ceilings as far as measurements tell: a device attained at least this much."""
    device = found.machine.devices[kind]
    times_us = [us for _, us in _timed(found, kind)]
    link_us, link_gbps = _link(found, kind)
    return DevicePeaks(
        name=device.identity,
        compute_units=device.compute_units,
        clock_mhz=device.clock_mhz,
        gflops=_attained(found, kind),
        half_gflops=max(
            (work.flops / us / 1e3 for work, us in _timed(found, kind, BF16)), default=None
        ),
        memory_gbps=max(
            (
                (work.weight_bytes + work.activation_bytes) / us / 1e3
                for work, us in _timed(found, kind)
            ),
            default=_SLOWEST,
        ),
        launch_us=max(min(times_us, default=_SLOWEST), _SLOWEST),
        link_gbps=link_gbps,
        link_us=link_us,
        target=device.target,
    )


def _attained(found: Results, kind: str) -> float:
    return max((work.flops / us / 1e3 for work, us in _timed(found, kind)), default=_SLOWEST)


def _timed(found: Results, kind: str, precision: str = F32) -> Iterator[tuple[Workload, float]]:
    """What ran in that precision on devices of that kind, and its microseconds."""
    works = {work.key: work for work in found.workloads}
    for one in found.candidates:
        backend = BACKENDS.get(one.decision.unit)
        if backend is None or backend.device != kind or one.decision.precision != precision:
            continue
        if one.timing is not None and one.timing.us > 0 and one.key in works:
            yield works[one.key], one.timing.us


def _link(found: Results, kind: str) -> tuple[float, float]:
    """Microseconds of the smallest copy from or to the host, and GB/s beyond it; the slower direction of each."""
    copies: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for one in found.boundaries:
        if (
            one.kind == "crossing"
            and {one.source, one.destination} == {HOST_UNIT, kind}
            and one.timing
        ):
            point = (one.tensor.bytes, one.timing.us)
            copies.setdefault((one.source, one.destination), []).append(point)
    links = [(min(points), max(points)) for points in copies.values()]
    smallest_us = max((first[1] for first, _ in links), default=_SLOWEST)
    rates = [
        (last[0] - first[0]) / max(last[1] - first[1], 1e-3) / 1e3
        for first, last in links
        if last[0] > first[0]
    ]
    return smallest_us, max(min(rates, default=_SLOWEST), _SLOWEST)
