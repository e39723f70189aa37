"""Instruction sets of the CPU, and those that may be used: oneDNN's variable limits every unit.

``ONEDNN_MAX_CPU_ISA=AVX2`` makes a machine behave like an older one: oneDNN respects it, TVM
generates code for it, and the machine has the fingerprint of the older one. Importing this does not
import TVM.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tvm_passes.errors import LayoutselError

VARIABLE = "ONEDNN_MAX_CPU_ISA"
"""oneDNN's environment variable."""


@dataclass(frozen=True, kw_only=True)
class IsaLimit:
    """A limit on instruction sets."""

    name: str
    """oneDNN's name of the limit."""
    mcpu: str
    """LLVM's name of a CPU with exactly these instruction sets."""
    blas_core: str
    """OpenBLAS's name of its kernels for such a CPU."""
    flags: frozenset[str]
    """The kernel's names of the remaining extensions."""


_AVX2 = frozenset({"sse4_2", "popcnt", "avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm"})
"""The kernel's names of the extensions up to AVX2."""
LIMITS: Mapping[str, IsaLimit] = {
    "AVX2": IsaLimit(name="AVX2", mcpu="haswell", blas_core="Haswell", flags=_AVX2),
    "AVX512_CORE": IsaLimit(
        name="AVX512_CORE",
        mcpu="skylake-avx512",
        blas_core="SkylakeX",
        flags=_AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    ),
}
"""Limit by the variable's value."""

EXTENSIONS: Mapping[str, str] = {
    **{name: name for name in ("popcnt", "avx", "avx2", "fma", "f16c", "bmi2", "gfni", "vaes")},
    **{name: name for name in ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")},
    **{name: name for name in ("avx512vbmi", "avx512ifma", "vpclmulqdq")},
    **{"sse4_2": "sse4.2", "bmi1": "bmi", "abm": "lzcnt", "avx_vnni": "avxvnni"},
    **{f"avx512_{name}": f"avx512{name}" for name in ("vnni", "bf16", "fp16", "vbmi2", "bitalg")},
    **{f"amx_{name}": f"amx-{name}" for name in ("tile", "bf16", "int8")},
}
"""LLVM's names of the x86 extensions that generated code may use, by the kernel's names."""

_NONE = ("", "DEFAULT", "ALL")
"""Values of the variable that set no limit."""


def isa_limit() -> IsaLimit | None:
    """Return the limit of this process; None if there is none.

    Raises
    ------
    LayoutselError
        If the variable names a limit that only oneDNN supports.
    """
    value = os.environ.get(VARIABLE, "").upper()
    if value in _NONE:
        return None
    if value not in LIMITS:
        raise LayoutselError(
            f"{VARIABLE}={value}: not supported; expected one of {', '.join(LIMITS)}, or unset it"
        )
    return LIMITS[value]


def cpu_flags() -> frozenset[str]:
    """Return the kernel's names of the usable extensions; empty without ``/proc/cpuinfo``."""
    info = cpuinfo()
    flags = frozenset((info.get("flags") or info.get("Features") or "").split())
    limit = isa_limit()
    return flags & limit.flags if limit else flags


@cache
def cpuinfo() -> Mapping[str, str]:
    """Return the first processor's entries of ``/proc/cpuinfo``; empty if it does not exist."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
