"""The CPU for which kernels are generated."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from tvm.target import Target, codegen

from tvm_passes.isa import EXTENSIONS, cpu_flags, isa_limit
from tvm_passes.targets import cross_target, kernel_threads


@dataclass(frozen=True, kw_only=True)
class VectorUnit:
    """Vector instructions of a target that determine register tiles."""

    lanes: int
    """Floats per register."""
    registers: int
    """Number of vector registers."""
    threads: int
    """Threads of a parallel loop."""
    l2_bytes: int = 1 << 20
    """Part of one core's second-level cache that a kernel may use, bytes."""


_BY_FEATURE = (("avx512f", 16, 32), ("avx", 8, 16), ("neon", 4, 32))
"""CPU feature, lanes, registers; the first feature that a target has applies."""


def vector_unit(target: Target) -> VectorUnit:
    """Return the vector unit of an LLVM target; 128-bit registers by default."""
    lanes, registers = 4, 16
    for feature, feature_lanes, feature_registers in _BY_FEATURE:
        if codegen.llvm_cpu_has_features(feature, target):
            lanes, registers = feature_lanes, feature_registers
            break
    return VectorUnit(lanes=lanes, registers=registers, threads=max(num_cores(target), 1))


def has_bf16(target: Target) -> bool:
    """Return whether a target converts and multiplies bfloat16 in vectors (AVX512_BF16)."""
    return bool(codegen.llvm_cpu_has_features("avx512bf16", target))


def has_vnni(target: Target) -> bool:
    """Return whether a target multiplies bytes and sums four products without saturation."""
    return any(codegen.llvm_cpu_has_features(name, target) for name in ("avx512vnni", "avxvnni"))


def num_cores(target: Target) -> int:
    """Return a target's number of cores.

    If it states none, return the number of threads that code is generated for.
    """
    stated = target.attrs.get("num-cores") if hasattr(target, "attrs") else None
    return int(stated) if stated else _cores()


def _cores() -> int:
    """Return the threads that code is generated for; by default this process's share of cores."""
    return kernel_threads() or len(os.sched_getaffinity(0))


def host_target(override: str | dict[str, object] | None = None) -> Target:
    """Return the target of this machine: ``llvm`` with its CPU and its number of cores.

    The CPU may be an older one that is compatible with this machine's. If code is generated for
    another machine or a fixed number of threads (:mod:`tvm_passes.targets`), the target has these.

    Parameters
    ----------
    override
        A target to use instead, as text or dictionary; a missing number of cores is added.
    """
    if override is not None:
        target = Target(override)
        if target.attrs.get("num-cores"):
            return target
        return _with_cores(target, _cores())
    other = cross_target()
    if other is not None:
        return _with_cores(other.host, kernel_threads() or num_cores(other.host))
    limit = isa_limit()
    flags = cpu_flags()
    mcpu, mattr = generation(codegen.llvm_get_system_cpu(), flags)
    if limit is not None and limit.flags <= flags:
        mcpu, mattr = limit.mcpu, ()
    if "avx512f" in flags:
        # LLVM prefers 256-bit registers on these CPUs, which halves the width of vectorised loops.
        mattr = (*mattr, "-prefer-256-bit")
    config = {"kind": "llvm", "mcpu": mcpu, "num-cores": _cores()}
    return Target({**config, "mattr": [*mattr]} if mattr else config)


def _with_cores(target: Target, count: int) -> Target:
    """Return `target` with a number of cores."""
    if target.attrs.get("num-cores") == count:
        return target
    return Target({**dict(target.export()), "num-cores": count})


_GENERATIONS = (
    *("sapphirerapids", "icelake-server", "cooperlake", "cascadelake", "skylake-avx512"),
    *("haswell", "x86-64-v2", "x86-64"),
)
"""CPUs that may represent a compatible newer one."""


@cache
def generation(name: str, flags: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """Return LLVM's name of a CPU, and the features that it has in addition to those of the name.

    Hypervisors give a CPU the number of another model, which determines LLVM's name, or hide some
    of its extensions. The name is therefore that of the CPU with the most extensions that are all
    present.

    Parameters
    ----------
    name
        LLVM's name of the CPU; kept if no other fits better, and on other architectures than x86.
    flags
        The kernel's names of the CPU's extensions.
    """
    has = {feature for flag, feature in EXTENSIONS.items() if flag in flags}
    if not has:
        return name, ()
    fitting = {
        cpu: features for cpu in (name, *_GENERATIONS) if (features := _features_of(cpu)) <= has
    }
    cpu = max(fitting, key=lambda cpu: len(fitting[cpu]))
    return cpu, tuple(f"+{feature}" for feature in sorted(has - fitting[cpu]))


def _features_of(cpu: str) -> set[str]:
    """Return the extensions that LLVM assumes of a CPU."""
    target = Target({"kind": "llvm", "mcpu": cpu})
    return {
        feature for feature in EXTENSIONS.values() if codegen.llvm_cpu_has_features(feature, target)
    }
