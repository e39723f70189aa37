"""Libraries and permissions that the code of a unit needs in a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm_passes import cuda
from tvm_passes.amx import machine as amx
from tvm_passes.onednn import plugin as onednn
from tvm_passes.opencl import unavailable as opencl_unavailable
from tvm_passes.opencl.plugin import identity as opencl_identity

LOADERS: Mapping[str, Callable[[], str | None]] = {
    "onednn": onednn.available,
    "amx": amx.unavailable,
    "cuda": cuda.missing,
    "opencl": opencl_unavailable,
}
"""Loaders by unit: return the reason of a failure, or None."""

IDENTITIES: Mapping[str, Callable[[int], str]] = {
    "cuda": cuda.identity,
    "opencl": opencl_identity,
}
"""Identity of hardware and driver, which measurements depend on, by unit and device number."""
