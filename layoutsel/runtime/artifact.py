"""One file that holds everything: a shared library with the weights and a JSON header behind it.

::

    [ELF shared library] [padding] [weights, each aligned] [header, JSON] [footer]

A loader of shared libraries ignores what follows the library, so the file stays loadable by TVM; the weights are mapped,
not read, so that loading costs no copy and several processes share one. A model that takes over where a device fails lies
behind the weights: its library and its weights, its header within the first one's as ``fallback``.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from layoutsel.runtime.arrays import bits_of, dtype_of
from tvm_passes.errors import LayoutselError

ALIGNMENT = 4096
SUFFIX = ".so"
MAGIC = b"LAYOUTSEL\x01\x00\x00\x00\x00\x00\x00"
FOOTER = struct.Struct("<16sQQI4x")
"""Magic, offset and length of the header, its CRC-32."""


_Key = tuple[tuple[int, ...], str, bytes]
"""Shape, element type and hash of a weight."""


class ArtifactError(LayoutselError):
    """A file that is no artifact, or a damaged one."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A model for :func:`write` to write."""

    library: Path
    weights: Sequence[np.ndarray]
    header: Mapping[str, Any]


@dataclass(frozen=True)
class Artifact:
    """What :func:`write` wrote."""

    path: Path
    header: Mapping[str, Any]
    weights: tuple[np.ndarray, ...]
    """Mapped copy-on-write from the file."""
    fallback: Artifact | None = None
    """The model that takes over where a device fails; its library has to be extracted."""


def check_name(path: Path) -> None:
    """Refuse a name that the loader of shared libraries does not know; raises :class:`ArtifactError`."""
    if path.suffix != SUFFIX:
        raise ArtifactError(
            f"{path}: got the suffix {path.suffix!r}; expected {SUFFIX!r}, which the loader of shared libraries goes "
            f"by. Call it {path.with_suffix(SUFFIX).name}"
        )


def write(path: Path, model: Part, fallback: Part | None = None) -> None:
    """Write an artifact atomically: a reader sees the old file or the whole new one.

    Raises
    ------
    ArtifactError
        If `path` cannot be written.
    """
    with _replacing(path) as file:
        written: dict[_Key, int] = {}
        header = _append_part(file, model, written)
        if fallback is not None:
            header["fallback"] = _append_part(file, fallback, written)
        body = json.dumps(header).encode()
        offset = file.tell()
        file.write(body)
        file.write(FOOTER.pack(MAGIC, offset, len(body), zlib.crc32(body)))


def copy(source: Path, path: Path) -> None:
    """Copy an artifact atomically; raises :class:`ArtifactError` if `path` cannot be written."""
    with _replacing(path) as file, source.open("rb") as original:
        shutil.copyfileobj(original, file)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place once it is whole."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror}; choose another place"
        ) from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        temporary.chmod(0o755)
        temporary.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _append_part(file: BinaryIO, part: Part, written: dict[_Key, int]) -> dict[str, Any]:
    """Write library and weights, but for those that are `written` already; the header with their places."""
    code = part.library.read_bytes()
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    library = {"offset": file.tell(), "bytes": len(code), "crc": zlib.crc32(code)}
    file.write(code)
    table = [_append(file, weight, written) for weight in part.weights]
    return {**part.header, "library": library, "weights": table}


def _append(file: BinaryIO, weight: np.ndarray, written: dict[_Key, int]) -> dict[str, Any]:
    data = np.ascontiguousarray(bits_of(weight)).data
    key = (weight.shape, str(weight.dtype), hashlib.sha256(data).digest())
    if key not in written:
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        written[key] = file.tell()
        file.write(data)
    return {"offset": written[key], "shape": list(weight.shape), "dtype": str(weight.dtype)}


def read(path: Path) -> Artifact:
    """Open an artifact.

    Raises
    ------
    ArtifactError
        If the file is missing, none of ours, truncated or damaged.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - FOOTER.size, 0))
            tail = file.read()
            if len(tail) < FOOTER.size or not tail.startswith(MAGIC):
                raise ArtifactError(
                    f"{path} is no layoutsel artifact, or is cut off: expected the footer that "
                    f"`layoutsel compile -o {path.name}` writes; compile the model again"
                )
            _, offset, length, crc = FOOTER.unpack(tail)
            is_whole = offset + length + FOOTER.size == size
            file.seek(offset if is_whole else 0)
            body = file.read(length) if is_whole else b""
            if not is_whole or zlib.crc32(body) != crc:
                raise ArtifactError(
                    f"{path} is damaged: its header fails its checksum; compile again"
                )
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    return _part(path, mapped, json.loads(body))


def _part(path: Path, mapped: mmap.mmap, header: Mapping[str, Any]) -> Artifact:
    weights = tuple(_map(mapped, entry) for entry in header["weights"])
    other = header.get("fallback")
    return Artifact(path, header, weights, _part(path, mapped, other) if other else None)


@contextmanager
def extracted(part: Artifact) -> Iterator[Path]:
    """The library of a fallback as a file of its own, which may go once it is loaded.

    Raises
    ------
    ArtifactError
        If it is damaged, or there is no room for it.
    """
    place = part.header["library"]
    try:
        with part.path.open("rb") as file:
            file.seek(place["offset"])
            code = file.read(place["bytes"])
        if zlib.crc32(code) != place["crc"]:
            raise ArtifactError(
                f"{part.path} is damaged: the code of its fallback fails its checksum; compile again"
            )
        with tempfile.NamedTemporaryFile(prefix="layoutsel-", suffix=SUFFIX) as library:
            library.write(code)
            library.flush()
            yield Path(library.name)
    except OSError as error:
        raise ArtifactError(
            f"cannot extract the fallback of {part.path}: {error.strerror}"
        ) from error


def _map(mapped: mmap.mmap, entry: Mapping[str, Any]) -> np.ndarray:
    count = int(np.prod(entry["shape"]))
    dtype = dtype_of(entry["dtype"])
    array = np.frombuffer(mapped, dtype=dtype, count=count, offset=entry["offset"])
    return array.reshape(entry["shape"])
