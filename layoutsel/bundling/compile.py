"""Compilation of a bundle's programs in a child process, which calls it by name."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tvm.target import Target

from layoutsel.building.candidate import Built
from layoutsel.building.measure import build_request
from layoutsel.device.archive import sha256
from layoutsel.device.manifest import Argument, ProgramEntry
from layoutsel.runtime import linking
from layoutsel.runtime.arrays import bits_of
from tvm_passes.cpu import host_target
from tvm_passes.targets import CrossTarget, for_threads, targeting

LIBRARIES = "lib"
"""Folder of a bundle's shared libraries."""
_SMALL_BYTES = 4096
"""Largest weight whose values are bundled, bytes; small tables and scales may steer a kernel."""
_ANY_VALUES = frozenset(
    {"float32", "float16", "bfloat16", "uint16", "uint32", "int8", "uint8"},
)
"""Types of larger weights that random values may replace."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A program to compile."""

    request: Mapping[str, Any]
    """Request for :func:`layoutsel.building.measure.run_request`."""
    host: Mapping[str, Any] | None
    """Target of another machine's CPU; None for this machine."""
    devices: Mapping[str, Mapping[str, Any]]
    """Targets of the other machine's devices, by their names."""
    folder: Path
    """Folder of the bundle."""
    compiler: str | None
    """C++ compiler that links; this machine's if None."""


def compile_order(order: Order) -> tuple[ProgramEntry, ...]:
    """Build an order's programs and write their libraries, named by content, into its folder."""
    host = None if order.host is None else Target(dict(order.host))
    devices = {kind: Target(dict(target)) for kind, target in order.devices.items()}
    there = None if host is None else CrossTarget(host=host, devices=devices)
    with targeting(there), for_threads(order.request.get("threads")):
        built = build_request(order.request, host_target())
        return tuple(_program(one, order) for one in built)


def _program(built: Built, order: Order) -> ProgramEntry:
    return ProgramEntry(
        file=export_library(built.executable, order.folder, order.compiler),
        inputs=tuple(
            Argument(shape=ty.shape, dtype=ty.dtype, place=built.device.target_name, data=None)
            for ty in built.inputs
        ),
        weights=tuple(_argument(weight, place.target_name) for weight, place in built.weights),
        devices=tuple(device.target_name for device in built.devices),
        device=built.device.target_name,
        copies=built.copies,
    )


def export_library(executable: Any, folder: Path, compiler: str | None) -> str:
    """Link a shared library in a bundle's folder; returns its path within the bundle."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        library = Path(place) / "library.so"
        linking.export_library(executable, library, compiler=compiler)
        name = f"{LIBRARIES}/{sha256(library)[:16]}.so"
        (folder / LIBRARIES).mkdir(exist_ok=True)
        library.replace(folder / name)
    return name


def _argument(weight: np.ndarray, place: str) -> Argument:
    dtype = str(weight.dtype)
    is_free = weight.nbytes > _SMALL_BYTES and dtype in _ANY_VALUES
    data = None if is_free else base64.b64encode(bits_of(weight).tobytes()).decode()
    return Argument(shape=tuple(map(int, weight.shape)), dtype=dtype, place=place, data=data)
