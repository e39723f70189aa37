"""Artifacts: one file with a shared library, its weights and a JSON header.

::

    [ELF shared library] [padding] [weights, each aligned] [header, JSON] [footer]

A loader of shared libraries ignores all data after the library, so TVM can load the file directly.
Weights are mapped, not read: loading copies nothing, and several processes share one copy. Other
models follow the first model's weights: a fallback, whose header is the entry ``fallback`` of the
first one, and models for several samples at once, whose headers by number of samples are the entry
``batches``. Equal weights are stored once.
"""

from __future__ import annotations

import json
import mmap
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from layoutsel.core.files import replacing
from layoutsel.device.artifact_header import (
    FOOTER,
    MAGIC,
    SUFFIX,
    read_header,
)
from layoutsel.device.artifact_parts import ArtifactError, checksum
from layoutsel.runtime.arrays import bits_of, dtype_of

ALIGNMENT = 4096
"""Alignment of libraries and weights within the file, bytes; one page, for mapping."""

_Key = tuple[tuple[int, ...], str, str]
"""Shape, element type and checksum of a weight."""


@dataclass(frozen=True, kw_only=True)
class ArtifactPart:
    """A model in the form that :func:`write` takes."""

    library: Path
    """Shared library with the code."""
    weights: Sequence[np.ndarray]
    """Weights, in the order of the functions' tuple."""
    header: Mapping[str, Any]
    """Signatures, plan, checks and provenance."""


@dataclass(frozen=True)
class Artifact:
    """An opened artifact."""

    path: Path
    """File of the artifact."""
    header: Mapping[str, Any]
    """Parsed header."""
    weights: tuple[np.ndarray, ...]
    """Weights, mapped copy-on-write from the file."""
    fallback: Artifact | None = None
    """Model that takes over after a device failure; its library must be extracted first."""
    batches: Mapping[int, Artifact] = field(default_factory=dict)
    """Models for several samples at once, by number; their libraries must be extracted first."""


def write(
    path: Path,
    model: ArtifactPart,
    fallback: ArtifactPart | None = None,
    batches: Mapping[int, ArtifactPart] | None = None,
) -> None:
    """Write an artifact atomically.

    Parameters
    ----------
    path
        File to create or replace.
    model
        The model.
    fallback
        Model of host units that takes over after a device failure.
    batches
        Models for several samples at once, by number.

    Raises
    ------
    WriteError
        If `path` cannot be written.
    """
    with replacing(path, executable=True) as file:
        written: dict[_Key, int] = {}
        header = _append_part(file, model, written)
        if fallback is not None:
            header["fallback"] = _append_part(file, fallback, written)
        if batches:
            header["batches"] = {
                str(size): _append_part(file, part, written) for size, part in batches.items()
            }
        body = json.dumps(header).encode()
        offset = file.tell()
        file.write(body)
        file.write(FOOTER.pack(MAGIC, offset, len(body), zlib.crc32(body)))


def copy(source: Path, path: Path) -> None:
    """Copy an artifact atomically; raises :class:`WriteError` if `path` cannot be written."""
    with replacing(path, executable=True) as file, source.open("rb") as original:
        shutil.copyfileobj(original, file)


def _append_part(file: BinaryIO, part: ArtifactPart, written: dict[_Key, int]) -> dict[str, Any]:
    """Append a library and its weights, without repeating any, and return the complete header."""
    code = part.library.read_bytes()
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    library = {"offset": file.tell(), "bytes": len(code), "crc": zlib.crc32(code)}
    file.write(code)
    table = [_append(file, weight, written) for weight in part.weights]
    return {**part.header, "library": library, "weights": table}


def _append(file: BinaryIO, weight: np.ndarray, written: dict[_Key, int]) -> dict[str, Any]:
    data = np.ascontiguousarray(bits_of(weight)).data
    digest = checksum(data)
    key = (weight.shape, str(weight.dtype), digest)
    if key not in written:
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        written[key] = file.tell()
        file.write(data)
    place = {"offset": written[key], "sha256": digest}
    return {**place, "shape": list(weight.shape), "dtype": str(weight.dtype)}


def read(path: Path) -> Artifact:
    """Open an artifact; raises as :func:`~layoutsel.device.artifact_header.read_header` does."""
    header = read_header(path)
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    return _part(path, mapped, header)


def _part(path: Path, mapped: mmap.mmap, header: Mapping[str, Any]) -> Artifact:
    weights = tuple(_map(mapped, entry) for entry in header["weights"])
    other = header.get("fallback")
    batches = header.get("batches", {})
    return Artifact(
        path,
        header,
        weights,
        fallback=_part(path, mapped, other) if other else None,
        batches={int(size): _part(path, mapped, one) for size, one in batches.items()},
    )


@contextmanager
def extracted(part: Artifact, what: str = "its fallback") -> Iterator[Path]:
    """Extract the library of another model to a temporary file, needed only while it is loaded.

    Parameters
    ----------
    part
        The model.
    what
        Its name in error messages.

    Raises
    ------
    ArtifactError
        If the library is damaged, or the disk is full.
    """
    place = part.header["library"]
    try:
        with part.path.open("rb") as file:
            file.seek(place["offset"])
            code = file.read(place["bytes"])
        if zlib.crc32(code) != place["crc"]:
            raise ArtifactError(
                f"{part.path} is damaged: the code of {what} fails its checksum; compile again"
            )
        with tempfile.NamedTemporaryFile(prefix="layoutsel-", suffix=SUFFIX) as library:
            library.write(code)
            library.flush()
            yield Path(library.name)
    except OSError as error:
        raise ArtifactError(
            f"cannot extract the code of {what} from {part.path}: {error.strerror}"
        ) from error


def _map(mapped: mmap.mmap, entry: Mapping[str, Any]) -> np.ndarray:
    count = int(np.prod(entry["shape"]))
    dtype = dtype_of(entry["dtype"])
    array = np.frombuffer(mapped, dtype=dtype, count=count, offset=entry["offset"])
    return array.reshape(entry["shape"])
