"""Peak rates of devices with a memory of their own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

from layoutsel.core.workload import Workload
from layoutsel.cost.probing import ask, kept, remembered
from layoutsel.documents import from_json
from layoutsel.errors import DeviceError
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.errors import LayoutselError
from tvm_passes.precisions import PRECISIONS

RESULTS_PER_UNIT = 2048
"""Number of result elements that keep one of a device's processors (compute units) busy.

It is the tile of a work group in TVM's schedule of matrix products, dlight's Matmul: 32 × 64.
"""


@dataclass(frozen=True, kw_only=True)
class DevicePeaks:
    """Roofline ceilings of a device, all compute units together."""

    name: str
    """Name of the device; for a local one, platform, device and driver from its unit's backend."""
    compute_units: int
    """Number of compute units; CUDA calls them streaming multiprocessors."""
    clock_mhz: float
    """Clock rate, MHz."""
    gflops: float
    """Peak rate of f32 multiply-adds, GFLOP/s."""
    half_gflops: float | None = None
    """Peak rate of f16 and bf16 on matrix units, GFLOP/s; None without matrix units."""
    memory_gbps: float
    """Bandwidth between the compute units and the device's memory, read and write, GB/s."""
    launch_us: float
    """Overhead of a kernel launch, microseconds."""
    target: str | None = None
    """TVM target, such as the tag ``nvidia/nvidia-a100``; None for TVM's default of its kind."""

    def __post_init__(self) -> None:
        rates = (self.gflops, self.memory_gbps, self.clock_mhz, self.compute_units)
        least = min(*rates, self.launch_us, self.half_gflops or self.gflops)
        if not (least > 0 and self.half_gflops != 0):
            raise LayoutselError(f"not a device's peaks: {self}")

    def __str__(self) -> str:
        return (
            f"{self.compute_units} compute units of {self.clock_mhz:,.0f} MHz, "
            f"{self.gflops:,.0f} GFLOP/s, "
            f"{self.memory_gbps:,.0f} GB/s, launch {self.launch_us:,.1f} µs"
        )

    @property
    def cache_gbps(self) -> float:
        """Memory bandwidth, GB/s: device caches do not keep a tensor between kernels."""
        return self.memory_gbps

    @property
    def cache_bytes(self) -> int:
        """Zero: device caches do not keep a tensor between kernels."""
        return 0

    def rate(self, workload: Workload, decision: Decision) -> float:
        """Peak rate that a kernel can use, GFLOP/s: few results leave compute units idle."""
        wanted = max((prod(shape) for shape in workload.outputs), default=0)
        busy = min(1.0, wanted / (self.compute_units * RESULTS_PER_UNIT)) if wanted else 1.0
        precision = PRECISIONS.get(decision.precision)
        half = self.half_gflops if precision and precision.on_matrix_units else None
        return busy * (half or self.gflops)


def device_peaks(where: str, identity: str, *, folder: Path | None = None) -> DevicePeaks:
    """Return the peaks of the device of a placed unit, measured once and then read from `folder`.

    Raises
    ------
    DeviceError
        If the measuring process fails.
    """
    return remembered(DevicePeaks, _name(where, identity), lambda: probe_device(where), folder)


def known_device_peaks(
    where: str, identity: str, *, folder: Path | None = None
) -> DevicePeaks | None:
    """Return the peaks of a device from `folder`; None if they were not measured."""
    return kept(DevicePeaks, _name(where, identity), folder)


def probe_device(where: str) -> DevicePeaks:
    """Measure the peaks of the device of a placed unit; takes about ten seconds.

    Raises
    ------
    DeviceError
        If the measuring process fails.
    """
    code = f"from layoutsel.building.device_probe import report; report({where!r})"
    try:
        found = ask(code, f"the device of {where!r}", {})
    except LayoutselError as error:
        raise DeviceError(str(error), device=parse_placed_unit(where)[1]) from error
    return from_json(DevicePeaks, found, file="probe")


def _name(where: str, identity: str) -> str:
    """Name of the file; identical devices of one kind share it."""
    kind = parse_placed_unit(where)[1].kind
    return f"device-peaks-{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
