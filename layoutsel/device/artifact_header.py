"""The header of an artifact, which lies behind its library and weights: see :mod:`layoutsel.runtime.artifact`."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layoutsel.device.artifact_parts import ArtifactError, check_parts
from tvm_passes.devices import HOST_DEVICE, DeviceId

SUFFIX = ".so"
MAGIC = b"LAYOUTSEL\x01\x00\x00\x00\x00\x00\x00"
FOOTER = struct.Struct("<16sQQI4x")
"""Magic, offset and length of the header, its CRC-32."""
LEAST_BYTES = 5 * 4096
"""No artifact is smaller: four pages of a shared library, and the header."""


def check_name(path: Path) -> None:
    """Refuse a name that the loader of shared libraries does not know; raises :class:`ArtifactError`."""
    if path.suffix != SUFFIX:
        raise ArtifactError(
            f"{path}: got the suffix {path.suffix!r}; expected {SUFFIX!r}, which the loader of shared libraries goes "
            f"by. Call it {path.with_suffix(SUFFIX).name}"
        )


def read_header(path: Path) -> Mapping[str, Any]:
    """Read what an artifact tells of itself.

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
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    if not is_whole or zlib.crc32(body) != crc:
        raise ArtifactError(f"{path} is damaged: its header fails its checksum; compile again")
    try:
        header = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is damaged: its header is no JSON ({error}); compile again"
        ) from error
    if not isinstance(header, dict):
        raise ArtifactError(
            f"{path} is damaged: its header is no object of JSON; compile the model again"
        )
    check_parts(path, header, offset)
    return header


def devices_of(header: Mapping[str, Any]) -> tuple[DeviceId, ...]:
    """Devices that a model runs on, in its virtual machine's order; the oldest artifacts know the host alone."""
    return tuple(map(DeviceId.named, header.get("devices", ()))) or (HOST_DEVICE,)


def places_of(header: Mapping[str, Any]) -> tuple[DeviceId, ...]:
    """Device that each weight is read on; the host where the header does not tell."""
    named = tuple(map(DeviceId.named, header.get("places") or ()))
    return named or (HOST_DEVICE,) * len(header["weights"])
