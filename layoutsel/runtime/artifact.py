"""One file that holds everything: a shared library with the weights and a JSON header behind it.

::

    [ELF shared library] [padding] [weights, each aligned] [header, JSON] [footer]

A loader of shared libraries ignores what follows the library, so the file stays loadable by TVM; the weights are mapped,
not read, so that loading costs no copy and several processes share one.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from layoutsel.ondevice.artifact_header import FOOTER, MAGIC, ArtifactError, read_header
from layoutsel.runtime.arrays import bits_of, dtype_of

ALIGNMENT = 4096


@dataclass(frozen=True)
class Artifact:
    """What :func:`write` wrote."""

    path: Path
    header: Mapping[str, Any]
    weights: tuple[np.ndarray, ...]
    """Mapped copy-on-write from the file."""


def write(
    path: Path, library: Path, weights: Sequence[np.ndarray], header: Mapping[str, Any]
) -> None:
    """Write an artifact atomically: a reader sees the old file or the whole new one.

    Raises
    ------
    ArtifactError
        If `path` cannot be written.
    """
    with _replacing(path) as file:
        with library.open("rb") as code:
            shutil.copyfileobj(code, file)
        table = [_append(file, weight) for weight in weights]
        body = json.dumps({**header, "weights": table}).encode()
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


def _append(file: BinaryIO, weight: np.ndarray) -> dict[str, Any]:
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    offset = file.tell()
    file.write(np.ascontiguousarray(bits_of(weight)).data)
    return {"offset": offset, "shape": list(weight.shape), "dtype": str(weight.dtype)}


def read(path: Path) -> Artifact:
    """Open an artifact; errors as of :func:`~layoutsel.ondevice.artifact_header.read_header`."""
    header = read_header(path)
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    return Artifact(path, header, tuple(_map(mapped, entry) for entry in header["weights"]))


def _map(mapped: mmap.mmap, entry: Mapping[str, Any]) -> np.ndarray:
    count = int(np.prod(entry["shape"]))
    dtype = dtype_of(entry["dtype"])
    array = np.frombuffer(mapped, dtype=dtype, count=count, offset=entry["offset"])
    return array.reshape(entry["shape"])
