"""Availability of AMX tiles: the CPU has them, the limit allows them, the kernel grants them."""

from __future__ import annotations

import ctypes
import functools
import platform
from typing import TYPE_CHECKING

from tvm_passes.isa import EXTENSIONS, VARIABLE, cpu_flags, isa_limit
from tvm_passes.targets import cross_target

if TYPE_CHECKING:
    from tvm.target import Target

_FEATURES = frozenset({"amx_tile", "amx_bf16", "avx512_bf16"})
"""Flags of the CPU that the kernels require."""
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
"""Linux on x86-64: number of the system call, ARCH_REQ_XCOMP_PERM, state component of tiles."""


@functools.cache
def unavailable() -> str | None:
    """Ask the kernel for permission to use tiles; returns None, or the reason of the refusal."""
    limit = isa_limit()
    if limit is not None:
        return f"{VARIABLE}={limit.name} leaves no AMX"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"AMX needs Linux on x86-64; this is {platform.system()} on {platform.machine()}"
    missing = sorted(_FEATURES - cpu_flags())
    if missing:
        return f"the CPU has no {', '.join(missing)}"
    if ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) != 0:
        return "the operating system does not grant AMX tiles to this process"
    return None


def absent() -> str | None:
    """Return the reason why the machine that is compiled for has no tiles, or None.

    See :mod:`tvm_passes.targets`.
    """
    other = cross_target()
    return unavailable() if other is None else unfit(other.host)


def unfit(target: Target) -> str | None:
    """Return the reason why another machine, whose CPU is `target`, has no tiles, or None."""
    from tvm.target import codegen

    features = sorted(EXTENSIONS[flag] for flag in _FEATURES)
    missing = [name for name in features if not codegen.llvm_cpu_has_features(name, target)]
    return not_x86(target) or (f"its CPU has no {', '.join(missing)}" if missing else None)


def not_x86(target: Target) -> str | None:
    """Return the reason why code for x86 does not run on `target`, or None."""
    triple = str(target.attrs.get("mtriple", "") or platform.machine())
    return None if triple.startswith("x86_64") else f"it is for x86-64, not {triple}"
