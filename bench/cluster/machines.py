"""Machines of the comparison, which are only modelled: figures of data sheets, and assumptions marked so.

Accelerators stand for nodes that hold them: their rate of arithmetic and memory, without copies from the host. Two or four of
them count as one of twice or four times the rate. How much of these rates kernels attain is `EFFICIENCIES` in
layoutsel/cost/roofline.py; nobody measured it on these machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from layoutsel import documents

AVX512 = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl")
"""Instructions; they decide which implementations are candidates, and are the same for all."""


@dataclass(frozen=True)
class Modelled:
    """A machine."""

    cores: int
    gflops: float
    """f32 arithmetic, GFLOP/s."""
    memory_gbps: float
    """Bandwidth of the memory, 80 % of the data sheet's: assumed."""
    cache_bytes: int
    """Last cache that all cores' tiles stay in."""
    memory_bytes: float
    watts: tuple[float, float]
    """Idle and busy power: idle is assumed."""

    def document(self, name: str) -> dict[str, object]:
        """Machine file; the cache's bandwidth is eight times the memory's: assumed."""
        return {
            "machine": {
                "cpu": f"{name} (modelled)",
                "cores": self.cores,
                "isa": ["sse4_2", *AVX512],
                "caches": {"L1": 32768, "L2": self.cache_bytes // self.cores},
                "memory_gib": int(self.memory_bytes / GB),
            },
            "peaks": {
                "threads": self.cores,
                "gflops": self.gflops,
                "cache_gbps": 8 * self.memory_gbps,
                "memory_gbps": self.memory_gbps,
                "cache_bytes": self.cache_bytes,
                "launch_us": 5.0,
            },
        }


GB = 1e9
MACHINES: Mapping[str, Modelled] = {
    # Intel N100: 4 cores, 2.9 GHz on all, 16 operations a cycle; DDR5-4800, one channel.
    "n100": Modelled(4, 186, 31, 2 << 20, 8 * GB, (3, 12)),
    # Intel i5-1240P: 4 + 8 cores, 3.3 and 2.5 GHz; DDR5-4800, two channels.
    "i5": Modelled(12, 742, 61, 9 << 20, 16 * GB, (5, 35)),
    # Intel Xeon Gold 6226R: 16 cores, 2.9 GHz base, 64 operations a cycle; six channels DDR4-2933.
    "xeon": Modelled(16, 2970, 113, 16 << 20, 64 * GB, (60, 150)),
    # AMD EPYC 7302P: 16 cores, 3.0 GHz, 32 operations a cycle; eight channels DDR4-3200.
    "epyc": Modelled(16, 1536, 164, 8 << 20, 64 * GB, (55, 155)),
    # NVIDIA's data sheets: f32 rate and memory bandwidth; half the cores' worth of cache per tile: assumed.
    "T4": Modelled(40, 8100, 256, 4 << 20, 16 * GB, (10, 70)),
    "L4": Modelled(58, 30300, 240, 48 << 20, 24 * GB, (16, 72)),
    "V100": Modelled(80, 14000, 720, 6 << 20, 16 * GB, (40, 250)),
    "A100": Modelled(108, 19500, 1244, 40 << 20, 40 * GB, (50, 400)),
    "T4x2": Modelled(80, 16200, 512, 8 << 20, 32 * GB, (20, 140)),
    "T4x4": Modelled(160, 32400, 1024, 16 << 20, 64 * GB, (40, 280)),
    "L4x2": Modelled(116, 60600, 480, 96 << 20, 48 * GB, (32, 144)),
}
"""Machines by name."""


def write(folder: Path) -> None:
    """Write one machine file for each machine."""
    for name, machine in MACHINES.items():
        documents.save(machine.document(name), folder / f"{name}.json")
