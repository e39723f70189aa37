"""The CPU that kernels are generated for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from tvm.target import Target, codegen

from tvm_passes.isa import EXTENSIONS, cpu_flags, isa_limit
from tvm_passes.targets import cross_target, kernel_threads


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
    """Cores of a target; where it does not say, those that code is generated for."""
    stated = target.attrs.get("num-cores") if hasattr(target, "attrs") else None
    return int(stated) if stated else _cores()


def _cores() -> int:
    """The threads that code is generated for, or this process's share of the machine where that is not said."""
    return kernel_threads() or len(os.sched_getaffinity(0))


def host_target(override: str | dict[str, object] | None = None) -> Target:
    """The target of this machine: ``llvm`` with its CPU, or an older one that stands for it, and its number of cores.

    Where code is generated for another machine or for a number of threads (:mod:`tvm_passes.targets`), it has these.

    Parameters
    ----------
    override
        A target to take instead, as text or dictionary; a missing number of cores is filled in.
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
    if target.attrs.get("num-cores") == count:
        return target
    return Target({**dict(target.export()), "num-cores": count})


_GENERATIONS = (
    *("sapphirerapids", "icelake-server", "cooperlake", "cascadelake", "skylake-avx512"),
    *("haswell", "x86-64-v2", "x86-64"),
)
"""CPUs that may stand for another."""


@cache
def generation(name: str, flags: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """LLVM's name of a CPU, and the features it has beside those of that name.

    Hypervisors give a CPU the number of another model, which LLVM goes by, or hide some of its extensions. So the
    name is that of the CPU with the most, but none that is missing here.

    Parameters
    ----------
    name
        What LLVM takes the CPU for; kept where nothing else fits better, and on what is no x86.
    flags
        The kernel's names of the extensions it has.
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
    target = Target({"kind": "llvm", "mcpu": cpu})
    return {
        feature for feature in EXTENSIONS.values() if codegen.llvm_cpu_has_features(feature, target)
    }
