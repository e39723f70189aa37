"""What a compiling process runs: build what is asked for and write it as shared libraries. Called by name."""

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
"""Weights up to this size travel as they are: tables and scales may decide what a kernel does…"""
_ANY_VALUES = frozenset(
    {"float32", "float16", "bfloat16", "uint16", "uint32", "int8", "uint8"},
)
"""… and larger ones unless they are of these types, of which random values do as well."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to compile."""

    request: Mapping[str, Any]
    """As of :func:`layoutsel.building.measure.run_request`."""
    host: Mapping[str, Any] | None
    """Target of another machine's CPU; None for this one."""
    devices: Mapping[str, Mapping[str, Any]]
    """Targets of its devices by :attr:`~tvm_passes.devices.DeviceId.target_name`."""
    folder: Path
    """Of the bundle that is being made."""
    compiler: str | None
    """The C++ compiler that links; this machine's if None."""


def compile_order(order: Order) -> tuple[ProgramEntry, ...]:
    """Build an order's programs and write their libraries into its folder, named by what is in them."""
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
    """Link `executable` as a shared library of the bundle in `folder`; returns its name there."""
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
