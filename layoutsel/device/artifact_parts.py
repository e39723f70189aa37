"""Checks of an artifact's code and weights: position in the file, types and checksums."""

from __future__ import annotations

import hashlib
import mmap
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tvm_ffi

from layoutsel.device.tensors import nbytes_of
from tvm_passes.devices import DEVICE_TYPES, DeviceId
from tvm_passes.errors import IllegalDevice, LayoutselError

_MOST_AXES = 64
"""Maximum rank of a tensor, above that of any TVM tensor."""
_MOST_THREADS = 4096
"""Maximum number of threads."""
_QUOTED = 80
"""Maximum length of a wrong value in a message, characters."""


class ArtifactError(LayoutselError):
    """A file that is not an artifact, or a damaged one."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Result of :func:`verify` for an intact artifact."""

    code_bytes: int
    """Size of the code, bytes."""
    weight_bytes: int
    """Size of the weights, bytes."""
    unchecked: int
    """Number of parts without a checksum, from older versions."""


def check_parts(path: Path, header: Mapping[str, Any], end: int) -> None:
    """Check the types of a header's entries, and that code and weights lie before its start.

    Parameters
    ----------
    path
        The artifact, for error messages.
    header
        Parsed header.
    end
        Offset of the header in the file, bytes.

    Raises
    ------
    ArtifactError
        Names the place in the header, the value there and the legal ones.
    """
    for where, got, expected in _problems(header, end):
        raise ArtifactError(
            f"{path} is damaged: at {where} of its header: got {repr(got)[:_QUOTED]}; "
            f"expected {expected}; "
            "compile the model again"
        )


def verify(path: Path, header: Mapping[str, Any]) -> Verified:
    """Compare all code and weights with their checksums.

    Raises
    ------
    ArtifactError
        Names the first part that differs.
    """
    sizes = {"code": 0, "weight": 0}
    unchecked, seen = 0, set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for kind, where, entry, nbytes in _parts(header):
            if (entry["offset"], nbytes) in seen:
                continue
            seen.add((entry["offset"], nbytes))
            sizes[kind] += nbytes
            holds = _holds(memoryview(mapped)[entry["offset"] : entry["offset"] + nbytes], entry)
            unchecked += holds is None
            if holds is False:
                raise ArtifactError(
                    f"{path} is damaged: {where} ({nbytes:,} bytes) fails its checksum; "
                    "copy it again, or compile again"
                )
    return Verified(code_bytes=sizes["code"], weight_bytes=sizes["weight"], unchecked=unchecked)


def checksum(data: memoryview) -> str:
    """Checksum of a weight, as the header stores it."""
    return hashlib.sha256(data).hexdigest()


def _holds(data: memoryview, entry: Mapping[str, Any]) -> bool | None:
    """True if a part matches its checksum; None if it has none."""
    with data:
        if "sha256" in entry:
            return checksum(data) == entry["sha256"]
        return zlib.crc32(data) == entry["crc"] if "crc" in entry else None


def _parts(
    header: Mapping[str, Any], model: str = "its"
) -> Iterator[tuple[str, str, Mapping[str, Any], int]]:
    """Kind, name, header entry and size in bytes of every part."""
    if "library" in header:
        yield "code", f"{model} code", header["library"], header["library"]["bytes"]
    for index, entry in enumerate(header["weights"]):
        nbytes = nbytes_of(entry["shape"], entry["dtype"])
        yield "weight", f"{model} weight {index} {entry['shape']}", entry, nbytes
    for name, other in _others(header):
        yield from _parts(other, f"its {name}'s")


_Problem = tuple[str, object, str]
"""Place in the header, value there, legal values."""


def _problems(header: Mapping[str, Any], end: int, prefix: str = "$") -> Iterator[_Problem]:
    for key, (holds, expected) in _FIELDS.items():
        if (key in header or key in _REQUIRED) and not holds(header.get(key)):
            yield f"{prefix}.{key}", header.get(key), expected
            return
    count = len(header["weights"])
    for key in ("places", "readers"):
        if header.get(key) and len(header[key]) != count:
            yield f"{prefix}.{key}", header[key], f"one entry for each of {count} weights"
    for index, entry in enumerate(header["weights"]):
        nbytes = nbytes_of(entry["shape"], entry["dtype"])
        if entry["offset"] + nbytes > end:
            yield f"{prefix}.weights[{index}]", entry, f"{nbytes:,} bytes within {end:,}"
    library = header.get("library")
    if library and library["offset"] + library["bytes"] > end:
        yield f"{prefix}.library", library, f"a place within {end:,} bytes"
    for name, other in _others(header):
        if further := [key for key in ("fallback", "batches") if other.get(key)]:
            yield f"{prefix}.{name}.{further[0]}", "a model", "none: the first model has all others"
        else:
            yield from _problems(other, end, f"{prefix}.{name}")


def _others(header: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and header of each further model of an artifact."""
    if "fallback" in header:
        yield "fallback", header["fallback"]
    for size, one in header.get("batches", {}).items():
        yield f"batches.{size}", one


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_AXES and all(map(_is_count, value))


@cache
def _is_type(name: str) -> bool:
    try:
        return bool(tvm_ffi.dtype(name).itemsize > 0)
    except (ValueError, RuntimeError, TypeError):
        return False


def _is_tensor(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and _is_shape(entry.get("shape"))
        and isinstance(entry.get("dtype"), str)
        and _is_type(entry["dtype"])
    )


def _are_tensors(value: object, key: str, holds: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and all(_is_tensor(e) and holds(e.get(key)) for e in value)


def _is_name(value: object) -> bool:
    return isinstance(value, str)


def _is_library(value: object) -> bool:
    keys = ("offset", "bytes", "crc")
    return isinstance(value, dict) and all(_is_count(value.get(key)) for key in keys)


def _is_device(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(DeviceId.named(value))
    except IllegalDevice:
        return False


def _are_devices(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_device, value))


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _are_models(value: object) -> bool:
    return isinstance(value, dict) and all(
        size.isdecimal() and int(size) > 1 and isinstance(one, dict) for size, one in value.items()
    )


_THREADS = f"a number of threads up to {_MOST_THREADS:,}"
_NAMES = "a list of names"
_DEVICES = f"devices among {', '.join(DEVICE_TYPES)}, with an index unless it is the first"
_REQUIRED = ("inputs", "outputs", "weights", "threads")
_SIGNATURES = "names, shapes and element types"
_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "inputs": (lambda value: _are_tensors(value, "name", _is_name), _SIGNATURES),
    "outputs": (lambda value: _are_tensors(value, "name", _is_name), _SIGNATURES),
    "weights": (
        lambda value: _are_tensors(value, "offset", _is_count),
        "offsets, shapes and element types",
    ),
    "threads": (lambda value: _is_count(value) and 0 < value <= _MOST_THREADS, _THREADS),
    "library": (_is_library, "offset, bytes and checksum of the code"),
    "devices": (
        lambda value: _are_devices(value) and bool(value),
        _DEVICES,
    ),
    "places": (_are_devices, _DEVICES),
    "readers": (_are_names, _NAMES),
    "features": (_are_names, _NAMES),
    "units": (_are_names, _NAMES),
    "plan": (lambda value: isinstance(value, dict), "a plan"),
    "fallback": (lambda value: isinstance(value, dict), "a model's header"),
    "batches": (_are_models, "models' headers by number of samples"),
}
"""Check of the value and legal values, by key of a model's header."""
