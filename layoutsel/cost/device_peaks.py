"""What a device with a memory of its own can do at best."""

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
"""Results that keep a compute unit busy: a work group's tile in TVM's schedule of products (dlight's Matmul, 32 × 64)."""


@dataclass(frozen=True, kw_only=True)
class DevicePeaks:
    """Ceilings of the roofline of a device, all of its compute units together."""

    name: str
    """What it is: of a device at hand platform, device and driver, as its unit's backend identifies it."""
    compute_units: int
    """Streaming multiprocessors, in CUDA's words."""
    clock_mhz: float
    gflops: float
    """f32 GFLOP/s of multiply-adds."""
    half_gflops: float | None = None
    """The same in f16 and bf16 on matrix units; None if it has none."""
    memory_gbps: float
    """GB/s between its compute units and its memory, read and written."""
    launch_us: float
    """Time of starting a kernel, microseconds."""
    target: str | None = None
    """What TVM generates its code for, such as the tag ``nvidia/nvidia-a100``; any of its unit's kind if None."""

    def __post_init__(self) -> None:
        rates = (self.gflops, self.memory_gbps, self.clock_mhz, self.compute_units)
        least = min(*rates, self.launch_us, self.half_gflops or self.gflops)
        if not (least > 0 and self.half_gflops != 0):
            raise LayoutselError(f"not a device's peaks: {self}")

    def __str__(self) -> str:
        return (
            f"{self.compute_units} compute units of {self.clock_mhz:,.0f} MHz, {self.gflops:,.0f} GFLOP/s, "
            f"{self.memory_gbps:,.0f} GB/s, launch {self.launch_us:,.1f} µs"
        )

    @property
    def cache_gbps(self) -> float:
        """That of its memory: its caches do not keep a tensor from kernel to kernel."""
        return self.memory_gbps

    @property
    def cache_bytes(self) -> int:
        """None that a tensor stays in."""
        return 0

    def rate(self, workload: Workload, decision: Decision) -> float:
        """GFLOP/s of its peak that a kernel can use: few results leave compute units idle."""
        wanted = max((prod(shape) for shape in workload.outputs), default=0)
        busy = min(1.0, wanted / (self.compute_units * RESULTS_PER_UNIT)) if wanted else 1.0
        precision = PRECISIONS.get(decision.precision)
        half = self.half_gflops if precision and precision.on_matrix_units else None
        return busy * (half or self.gflops)


def device_peaks(where: str, identity: str, *, folder: Path | None = None) -> DevicePeaks:
    """Peaks of the device of a placed unit: measured the first time, read from `folder` afterwards.

    Raises
    ------
    DeviceError
        If the measuring process fails.
    """
    return remembered(DevicePeaks, _name(where, identity), lambda: probe_device(where), folder)


def known_device_peaks(
    where: str, identity: str, *, folder: Path | None = None
) -> DevicePeaks | None:
    """The same where they were measured before, else None."""
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
    """Name of the file; alike devices of one kind share it."""
    kind = parse_placed_unit(where)[1].kind
    return f"device-peaks-{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
