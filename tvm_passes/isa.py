"""Which instruction sets the CPU has, and which may be used: oneDNN's own variable limits every unit alike.

``ONEDNN_MAX_CPU_ISA=AVX2`` makes a machine behave like an older one: oneDNN honours it, TVM generates code for
it, and the machine is fingerprinted as the older one. Importing this does not import TVM.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tvm_passes.errors import LayoutselError

VARIABLE = "ONEDNN_MAX_CPU_ISA"


@dataclass(frozen=True, kw_only=True)
class IsaLimit:
    """A limit on instruction sets."""

    name: str
    """As oneDNN spells it."""
    mcpu: str
    """LLVM's name of a CPU with just these."""
    blas_core: str
    """OpenBLAS's name of its kernels for such a CPU."""
    flags: frozenset[str]
    """The kernel's names of the extensions that are left."""


_AVX2 = frozenset({"sse4_2", "avx", "avx2", "fma", "f16c"})
LIMITS: Mapping[str, IsaLimit] = {
    "AVX2": IsaLimit(name="AVX2", mcpu="haswell", blas_core="Haswell", flags=_AVX2),
    "AVX512_CORE": IsaLimit(
        name="AVX512_CORE",
        mcpu="skylake-avx512",
        blas_core="SkylakeX",
        flags=_AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    ),
}
"""By the variable's value."""

EXTENSIONS: Mapping[str, str] = {
    **{name: name for name in ("popcnt", "avx", "avx2", "fma", "f16c", "bmi2", "gfni", "vaes")},
    **{name: name for name in ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")},
    **{name: name for name in ("avx512vbmi", "avx512ifma", "vpclmulqdq")},
    **{"sse4_2": "sse4.2", "bmi1": "bmi", "abm": "lzcnt", "avx_vnni": "avxvnni"},
    **{f"avx512_{name}": f"avx512{name}" for name in ("vnni", "bf16", "fp16", "vbmi2", "bitalg")},
    **{f"amx_{name}": f"amx-{name}" for name in ("tile", "bf16", "int8")},
}
"""x86's extensions that generated code may use: LLVM's names, by the kernel's."""

_NONE = ("", "DEFAULT", "ALL")


def isa_limit() -> IsaLimit | None:
    """The limit that holds for this process; None if there is none.

    Raises
    ------
    LayoutselError
        If the variable names a limit that only oneDNN knows.
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
    """The kernel's names of the extensions that may be used; none where there is no ``/proc/cpuinfo``."""
    info = cpuinfo()
    flags = frozenset((info.get("flags") or info.get("Features") or "").split())
    limit = isa_limit()
    return flags & limit.flags if limit else flags


@cache
def cpuinfo() -> Mapping[str, str]:
    """First processor's entries of ``/proc/cpuinfo``; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
