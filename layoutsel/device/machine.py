"""Description of this machine and its software versions, for the keys of measurements."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tvm_passes.isa import cpu_flags, cpuinfo

_ISA_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq"),
    *("avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2"),
)
"""Instruction-set extensions that affect speed, by their names in Linux."""

PACKAGES = ("apache-tvm", "apache-tvm-ffi")
"""Packages whose versions affect the cost of every candidate."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Properties of a machine that determine its speed."""

    cpu: str
    """Model name with family, model and stepping."""
    cores: int
    """Number of cores that this process may use."""
    isa: tuple[str, ...]
    """Instruction-set extensions that affect speed, by their names in Linux."""
    caches: Mapping[str, int]
    """Size in bytes by level, such as ``L2``."""
    memory_gib: int
    """Size of the main memory, GiB."""

    @property
    def fingerprint(self) -> str:
        """Short stable hash; equal machines have equal fingerprints."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib} GiB ({self.fingerprint})"


@cache
def this_machine() -> Machine:
    """Describe the machine of this process, as far as it is usable (:mod:`tvm_passes.isa`)."""
    info = cpuinfo()
    name = info.get("model name") or platform.processor() or platform.machine()
    details = [info[key] for key in ("cpu family", "model", "stepping") if key in info]
    flags = cpu_flags()
    return Machine(
        cpu=f"{name} {'/'.join(details)}".strip(),
        cores=_usable_cores(),
        isa=tuple(flag for flag in _ISA_FLAGS if flag in flags),
        caches=_caches(),
        memory_gib=_memory_gib(),
    )


def versions(packages: Iterable[str] = PACKAGES, scope: str = "") -> dict[str, str]:
    """Installed versions by package, prefixed with `scope:` if given; ``absent`` if missing."""
    found = {}
    for package in packages:
        name = f"{scope}:{package}" if scope else package
        try:
            found[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _caches() -> dict[str, int]:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = (
                (folder / name).read_text(encoding="utf-8").strip()
                for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction" and size[:-1].isdigit():
            found[f"L{level}"] = int(size[:-1]) * units.get(size[-1], 1)
    return found


def _memory_gib() -> int:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
    return round(size / 2**30)
