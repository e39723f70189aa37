"""Header of an artifact, stored at its end; see :mod:`layoutsel.runtime.artifact`."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layoutsel.core.file_versions import expected_version
from layoutsel.device.artifact_parts import ArtifactError, check_parts
from tvm_passes.devices import HOST_DEVICE, DeviceId

SUFFIX = ".so"
"""File suffix of artifacts, which the loader of shared libraries requires."""
VERSION = 1
"""Version of the file format; readers reject any other."""
_NAME, _VERSION_BYTES = b"LAYOUTSEL", 7
MAGIC = _NAME + VERSION.to_bytes(_VERSION_BYTES, "little")
"""First bytes of the footer: name and version of the format."""
FOOTER = struct.Struct("<16sQQI4x")
"""Magic, offset and length of the header in bytes, CRC-32 of the header."""
RENEW = "Compile the model again with 'layoutsel compile MODEL -o FILE'"
"""Advice on an artifact that is too old to be read."""
LEAST_BYTES = 5 * 4096
"""Minimum size of an artifact: four pages of a shared library, and the header."""


def check_name(path: Path) -> None:
    """Reject a file name without the suffix :data:`SUFFIX`; raises :class:`ArtifactError`."""
    if path.suffix != SUFFIX:
        raise ArtifactError(
            f"{path}: got the suffix {path.suffix!r}; expected {SUFFIX!r}, which the loader of "
            f"shared libraries requires. Rename it to {path.with_suffix(SUFFIX).name}"
        )


def read_header(path: Path) -> Mapping[str, Any]:
    """Read and check the header of an artifact.

    Raises
    ------
    ArtifactError
        If the file is missing, not an artifact, truncated or damaged.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - FOOTER.size, 0))
            tail = file.read()
            _check_footer(path, tail)
            _, offset, length, crc = FOOTER.unpack(tail)
            is_whole = offset + length + FOOTER.size == size
            file.seek(offset if is_whole else 0)
            body = file.read(length) if is_whole else b""
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    if not is_whole or zlib.crc32(body) != crc:
        raise ArtifactError(f"{path} is damaged: its header fails its checksum; compile again")
    try:
        header = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is damaged: its header is not JSON ({error}); compile again"
        ) from error
    if not isinstance(header, dict):
        raise ArtifactError(
            f"{path} is damaged: its header is not a JSON object; compile the model again"
        )
    check_parts(path, header, offset)
    return header


def _check_footer(path: Path, tail: bytes) -> None:
    """Reject a file that does not end with the footer of this format version."""
    if len(tail) < FOOTER.size or not tail.startswith(_NAME):
        raise ArtifactError(
            f"{path} is not a layoutsel artifact, or is truncated: expected the footer "
            f"that `layoutsel compile -o {path.name}` writes; compile the model again"
        )
    found = int.from_bytes(tail[len(_NAME) : len(MAGIC)], "little")
    if found != VERSION:
        expected = expected_version(found, (VERSION,), RENEW)
        raise ArtifactError(f"{path}: got an artifact of version {found}; expected {expected}")


def devices_of(header: Mapping[str, Any]) -> tuple[DeviceId, ...]:
    """Devices of a model, in its virtual machine's numbering; the host if the header has none."""
    return tuple(map(DeviceId.named, header.get("devices", ()))) or (HOST_DEVICE,)


def places_of(header: Mapping[str, Any]) -> tuple[DeviceId, ...]:
    """Device of each weight's consumer; the host if the header has none."""
    named = tuple(map(DeviceId.named, header.get("places") or ()))
    return named or (HOST_DEVICE,) * len(header["weights"])
