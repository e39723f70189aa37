"""What a device with a memory of its own can do at best, and what its link to the host takes."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_passes.errors import LayoutselError


@dataclass(frozen=True, kw_only=True)
class DevicePeaks:
    """Ceilings of the roofline of a device, all of its compute units together."""

    name: str
    """What it is: of a device at hand platform, device and driver, as its unit's backend identifies it."""
    compute_units: int
    """Streaming multiprocessors, in CUDA's words."""
    clock_mhz: float
    gflops: float
    """f32 GFLOP/s that a large matrix product attains."""
    half_gflops: float | None = None
    """The same in f16 and bf16 on matrix units; None where it has none."""
    memory_gbps: float
    """GB/s between its compute units and its memory, read and written."""
    launch_us: float
    """Time of starting a kernel, microseconds."""
    link_gbps: float
    """GB/s of a copy from or to the host's memory."""
    link_us: float
    """Time of the smallest such copy, microseconds."""

    def __post_init__(self) -> None:
        rates = (self.gflops, self.memory_gbps, self.link_gbps, self.clock_mhz, self.compute_units)
        if not (min(rates) > 0 and min(self.launch_us, self.link_us) >= 0):
            raise LayoutselError(f"not a device's peaks: {self}")
        if self.half_gflops is not None and not self.half_gflops > 0:
            raise LayoutselError(f"not a device's peaks: {self}")

    def copy_us(self, nbytes: float) -> float:
        """Microseconds of copying `nbytes` from or to the host."""
        return self.link_us + nbytes / self.link_gbps * 1e-3
