"""The compute unit ``opencl``: devices of any maker that have a driver for OpenCL."""

from __future__ import annotations

from tvm_passes import opencl
from tvm_passes.units.device import CODE, device_backend
from tvm_passes.units.entry import Abilities

LOCK_STEP = frozenset({"cumsum", "cumprod", "sort", "argsort", "topk"})
"""Operators whose kernels need work-items in lock step, which drivers for CPUs do not provide."""

BACKEND = device_backend(
    "opencl",
    unavailable=opencl.unavailable,
    identity=opencl.identity,
    missing=opencl.unavailable,
    abilities=Abilities(declined=LOCK_STEP),
    plugin="liblayoutsel_opencl",
    code=CODE,
    rank=4,
)
