"""The CPU that kernels are generated for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tvm.target import Target, codegen

from tvm_passes.isa import isa_limit


@dataclass(frozen=True, kw_only=True)
class VectorUnit:
    """The vector instructions of a target, as far as register tiling depends on them."""

    lanes: int
    """Floats per register."""
    registers: int
    """Vector registers."""
    threads: int
    """Threads of a parallel loop."""
    l2_bytes: int = 1 << 20
    """Share of the second-level cache of one core that a kernel may count on."""


_BY_FEATURE = (("avx512f", 16, 32), ("avx", 8, 16), ("neon", 4, 32))
"""CPU feature, lanes, registers; the first that a target has decides."""


def vector_unit(target: Target) -> VectorUnit:
    """The vector unit of an LLVM target; 128-bit registers where nothing wider is known."""
    lanes, registers = 4, 16
    for feature, feature_lanes, feature_registers in _BY_FEATURE:
        if codegen.llvm_cpu_has_features(feature, target):
            lanes, registers = feature_lanes, feature_registers
            break
    return VectorUnit(lanes=lanes, registers=registers, threads=max(num_cores(target), 1))


def has_bf16(target: Target) -> bool:
    """Whether a target converts to bfloat16, and multiplies it, in vector registers (AVX512_BF16)."""
    return bool(codegen.llvm_cpu_has_features("avx512bf16", target))


def has_vnni(target: Target) -> bool:
    """Whether a target multiplies bytes and adds four products at once without saturating in between."""
    return any(codegen.llvm_cpu_has_features(name, target) for name in ("avx512vnni", "avxvnni"))


def num_cores(target: Target) -> int:
    """Cores of a target; this process's share of the machine where the target does not say."""
    stated = target.attrs.get("num-cores") if hasattr(target, "attrs") else None
    return int(stated) if stated else len(os.sched_getaffinity(0))


def host_target(override: str | dict[str, object] | None = None) -> Target:
    """The target of this machine: ``llvm`` with its CPU, or an older one that stands for it, and its number of cores.

    Parameters
    ----------
    override
        A target to take instead, as text or dictionary; a missing number of cores is filled in.
    """
    if override is not None:
        target = Target(override)
        if target.attrs.get("num-cores"):
            return target
        return Target({**dict(target.export()), "num-cores": len(os.sched_getaffinity(0))})
    limit = isa_limit()
    config: dict[str, object] = {
        "kind": "llvm",
        "mcpu": limit.mcpu if limit else codegen.llvm_get_system_cpu(),
        "num-cores": len(os.sched_getaffinity(0)),
    }
    if codegen.llvm_cpu_has_features("avx512f", Target(config)):
        # LLVM prefers 256-bit registers on these CPUs, which halves the width of vectorised loops.
        config["mattr"] = ["-prefer-256-bit"]
    return Target(config)
