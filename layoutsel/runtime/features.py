"""Instruction sets of this machine, as far as generated code depends on them."""

from __future__ import annotations

from pathlib import Path

RELEVANT = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
"""Flags of ``/proc/cpuinfo`` that decide whether code built on one machine runs on another."""


def host_features() -> tuple[str, ...]:
    """Those of :data:`RELEVANT` that this machine has; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return tuple(feature for feature in RELEVANT if feature in flags)
