"""External data: tensors in files next to the model, read only from the model's own folder.

A model of unknown origin names the files of its tensors. All names are checked before any file is
opened: absolute paths, ``..`` and links out of the model's folder are rejected unread. Caches of
model hubs keep a model and its data as links into one folder of files. If the model itself is a
link, links into its target's folder are therefore allowed as well.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from google.protobuf.message import Message
from onnx import ModelProto, TensorProto, helper
from onnx.external_data_helper import uses_external_data

from layoutsel.errors import InvalidModel, ModelTooLarge
from tvm_passes.limits import HINT, ImportLimits, format_bytes

_MOST_LINKS = 40
"""Maximum number of links on the way to a file; the kernel's limit."""
_DIGITS = re.compile(r"[0-9]{1,19}")
"""Pattern of an offset or a length."""
_KERNEL_FILES = ("/proc", "/sys")
"""Folders of virtual files, whose sizes mean nothing."""
_MOST_COMPRESSION = 4
"""Maximum ratio of a file's size to its space on disk: file systems may compress."""
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
"""Bits per element of types that pack several elements into a byte."""


class _Refused(Exception):
    """Rejection of a tensor's file; the message completes the sentence "its file …"."""


def tensors_of(model: Message) -> Iterator[TensorProto]:
    """Yield every tensor in `model`: initializers, dense or sparse, and attributes at any depth."""
    stack = [model]
    while stack:
        for field, value in stack.pop().ListFields():
            if field.message_type is None:
                continue
            for message in [value] if isinstance(value, Message) else value:
                if isinstance(message, TensorProto):
                    yield message
                else:
                    stack.append(message)


def refuse_external_data(model: ModelProto, where: str) -> None:
    """Reject a loaded model with external data, whose folder is unknown.

    Raises
    ------
    InvalidModel
        If a tensor is external; the message names the first one.
    """
    for tensor in tensors_of(model):
        if uses_external_data(tensor):
            raise InvalidModel(
                f"{where}: tensor {tensor.name!r} lies outside of the loaded model; expected all "
                f"data within it. Load it with its external data, or give the path of the file"
            )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Part of a file that holds a tensor."""

    place: Path
    """Path of the file."""
    offset: int
    """Start of the part, bytes."""
    size: int
    """Length of the part, bytes."""
    found: os.stat_result
    """Status of the file before it is opened."""


def load_external_data(
    model: ModelProto,
    file: Path,
    *,
    allow_links: bool = False,
    limits: ImportLimits | None = None,
) -> None:
    """Read all tensors of `model` that lie in other files, in place.

    Parameters
    ----------
    model
        Model with references to files.
    file
        The model's own file.
    allow_links
        True to follow links out of the model's folder.
    limits
        Limits of the import; ``tensor_bytes`` limits the memory of tensors beyond the size of
        files.

    Raises
    ------
    InvalidModel
        If a location leads out of the folder or to no regular file, or its part does not fit the
        tensor.
    ModelTooLarge
        If tensors share bytes, or lie in holes of files, and take more memory than the limit.
    """
    external = [tensor for tensor in tensors_of(model) if uses_external_data(tensor)]
    if not external:
        return
    homes = () if allow_links else _homes(file)
    parts = []
    for tensor in external:
        with _readable(tensor, file):
            parts.append(_part(tensor, file, homes))
    _check_total(parts, file, limits or ImportLimits())
    for tensor, part in zip(external, parts, strict=True):
        with _readable(tensor, file):
            tensor.raw_data = _read(part)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


@contextmanager
def _readable(tensor: TensorProto, file: Path) -> Iterator[None]:
    """Name the tensor and its file in all errors within the context."""
    where = (
        f"{file}: tensor {_shown(tensor.name)} lies in "
        f"{_shown(_entries(tensor).get('location', ''))}"
    )
    try:
        yield
    except _Refused as error:
        raise InvalidModel(f"{where}: {error}") from None
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "there is no memory for it"
        raise InvalidModel(f"{where}, which cannot be read ({reason})") from None


def _check_total(parts: Sequence[_Part], file: Path, limits: ImportLimits) -> None:
    """Reject tensors that take far more memory than their files take disk space."""
    files = {(part.found.st_dev, part.found.st_ino): part.found for part in parts}
    held = sum(min(one.st_size, _MOST_COMPRESSION * 512 * one.st_blocks) for one in files.values())
    extra = sum(part.size for part in parts) - held
    if extra > limits.tensor_bytes:
        raise ModelTooLarge(
            f"{file}: its external data takes {format_bytes(extra)} more than its files hold; "
            f"expected at most {format_bytes(limits.tensor_bytes)} (limit 'tensor'). {HINT}"
        )


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _homes(file: Path) -> tuple[Path, ...]:
    """List the allowed folders: the model's own, and that of its target if the model is a link."""
    folders = [file.parent.resolve()]
    if file.is_symlink():
        folders.append(file.resolve().parent)
    return tuple(folders)


def _part(tensor: TensorProto, file: Path, homes: tuple[Path, ...]) -> _Part:
    """Find the part of a file that holds `tensor`; without `homes`, links may lead anywhere."""
    entries = _entries(tensor)
    offset = _number("offset", entries.get("offset", "0"))
    size = _size(tensor)
    length = _number("length", entries["length"]) if "length" in entries else size
    if length != size:
        raise _Refused(
            f"got a length of {length} bytes; its shape {list(tensor.dims)} takes {size}. "
            "Export it again"
        )
    place = _place(entries.get("location", ""), file, homes)
    try:
        found = place.lstat()
    except FileNotFoundError:
        raise _Refused("it does not exist. Put it beside the model") from None
    _check_kind(found)
    if found.st_size < offset + size:
        raise _Refused(
            f"expected {offset + size} bytes; it has only {found.st_size} and is cut short. "
            "Copy it again"
        )
    return _Part(place=place, offset=offset, size=size, found=found)


def _number(name: str, text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise _Refused(
            f"got the {name} {_shown(text)}; expected a number of bytes. Export it again"
        )
    return int(text)


def _size(tensor: TensorProto) -> int:
    """Compute the size of a tensor from its type and shape, bytes."""
    if min(tensor.dims, default=0) < 0:
        raise _Refused(f"got the shape {list(tensor.dims)}; expected no negative dimension")
    count = math.prod(tensor.dims)
    try:
        name = TensorProto.DataType.Name(tensor.data_type)
        element = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError):
        raise _Refused(f"got the element type {tensor.data_type}; expected one of ONNX") from None
    if element.hasobject or name == "STRING":
        raise _Refused("got text; expected numbers")
    bits = _PACKED_BITS.get(name, 8 * element.itemsize)
    return -(-count * bits // 8)


def _place(location: str, file: Path, homes: tuple[Path, ...]) -> Path:
    """Resolve `location` relative to `file` without leaving `homes`; without these, anywhere."""
    path = PurePosixPath(location)
    if not path.parts or "\0" in location:
        raise _Refused("expected the name of a file beside the model")
    if path.is_absolute() or ".." in path.parts:
        raise _Refused("expected a path that does not leave the model's folder. Export it again")
    folder = file.parent.resolve()
    return _followed(folder, path, homes) if homes else Path(os.path.realpath(folder / path))


def _followed(folder: Path, path: PurePosixPath, homes: tuple[Path, ...]) -> Path:
    """Follow `path` and its links from `folder`; nothing outside `homes` is accessed."""
    place, left, links = folder, list(reversed(path.parts)), 0
    while left:
        place /= left.pop()
        if not place.is_symlink():
            continue
        links += 1
        target = Path(os.path.normpath(place.parent / place.readlink()))
        home = next((home for home in homes if target.is_relative_to(home)), None)
        if home is None or links > _MOST_LINKS:
            raise _Refused(
                "got a link that leads out of the model's folder; --allow-external-links "
                "follows it, if you trust the model"
            )
        left.extend(reversed(target.relative_to(home).parts))
        place = home
    return place


def _read(part: _Part) -> bytes:
    """Read the bytes of a part; never waits if a pipe or device has replaced the file meanwhile."""
    descriptor = os.open(part.place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        _check_kind(os.fstat(descriptor))
        stream.seek(part.offset)
        data = stream.read(part.size)
    if len(data) != part.size:
        raise _Refused(f"it ends {part.size - len(data)} bytes early. Copy it again")
    return data


def _check_kind(found: os.stat_result) -> None:
    """Reject anything but a regular file on a disk."""
    made_up = {Path(root).stat().st_dev for root in _KERNEL_FILES if Path(root).exists()}
    if not stat.S_ISREG(found.st_mode) or found.st_dev in made_up:
        raise _Refused("expected a regular file. Export it again")


def _shown(text: str, most: int = 80) -> str:
    """Quote a text of the model for a message: on one line, and short."""
    return repr(text if len(text) <= most else f"{text[:most]}…")
