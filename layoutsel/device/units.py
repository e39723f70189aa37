"""What a process has to ask for, or to load, before the code of a unit runs."""

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
"""By unit: loads what it needs, and says why it cannot; None if it could."""

IDENTITIES: Mapping[str, Callable[[int], str]] = {
    "cuda": cuda.identity,
    "opencl": opencl_identity,
}
"""By unit on devices: all that measurements on a device depend on, by its number."""
