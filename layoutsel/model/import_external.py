"""External data: tensors in files beside the model, read only from where the model itself lies.

A model may come from anywhere, and names the files that its tensors lie in. Everything that a name may do is decided here,
before the file system is asked: an absolute path, ``..`` and a link out of the model's folder are refused unread. Caches of
model hubs keep a model and its data as links into one folder of files. So where the model itself is a link, links into the
folder that it leads to are followed too.
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
"""Links on the way to a file; as many as the kernel follows."""
_DIGITS = re.compile(r"[0-9]{1,19}")
"""An offset or a length."""
_KERNEL_FILES = ("/proc", "/sys")
"""Where files are what the kernel makes up; their sizes mean nothing."""
_MOST_COMPRESSION = 4
"""How many times larger than the room that it takes a file may be: disks compress."""
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
"""Bits of one element, of types that share bytes."""


class _Refused(Exception):
    """A tensor's file that may not, or cannot, be read; the message completes the sentence "its file …"."""


def tensors_of(model: Message) -> Iterator[TensorProto]:
    """Every tensor in `model`: initializers, dense or sparse, and attributes, in sub-graphs and functions too."""
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
    """Reject a loaded model with tensors that lie elsewhere: nobody knows in which folder.

    Raises
    ------
    InvalidModel
        Names the first one.
    """
    for tensor in tensors_of(model):
        if uses_external_data(tensor):
            raise InvalidModel(
                f"{where}: tensor {tensor.name!r} lies outside of the loaded model; expected all data within it. Load it "
                f"with its external data, or give the path of the file"
            )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The part of a file that holds a tensor."""

    place: Path
    offset: int
    size: int
    """Bytes."""
    found: os.stat_result
    """The file, before it is opened."""


def load_external_data(
    model: ModelProto,
    file: Path,
    *,
    allow_links: bool = False,
    limits: ImportLimits | None = None,
) -> None:
    """Read into `model` all tensors that lie in other files than `file`, the model's own.

    Parameters
    ----------
    allow_links
        Whether links may lead out of the model's folder.
    limits
        Its ``tensor_bytes`` bound what tensors take beyond what the files hold; the usual ones where None.

    Raises
    ------
    InvalidModel
        If a location leads elsewhere, or is no regular file, or its part is no number or does not fit the tensor.
    ModelTooLarge
        If many tensors lie in the same bytes, or in holes of files, and take more than the limit.
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
    """Name the tensor and its file in whatever is wrong with them."""
    where = f"{file}: tensor {_shown(tensor.name)} lies in {_shown(_entries(tensor).get('location', ''))}"
    try:
        yield
    except _Refused as error:
        raise InvalidModel(f"{where}: {error}") from None
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "there is no memory for it"
        raise InvalidModel(f"{where}, which cannot be read ({reason})") from None


def _check_total(parts: Sequence[_Part], file: Path, limits: ImportLimits) -> None:
    """Refuse tensors that take far more memory than their files take room."""
    files = {(part.found.st_dev, part.found.st_ino): part.found for part in parts}
    held = sum(min(one.st_size, _MOST_COMPRESSION * 512 * one.st_blocks) for one in files.values())
    extra = sum(part.size for part in parts) - held
    if extra > limits.tensor_bytes:
        raise ModelTooLarge(
            f"{file}: its external data takes {format_bytes(extra)} more than its files hold; expected at most "
            f"{format_bytes(limits.tensor_bytes)} (limit 'tensor'). {HINT}"
        )


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _homes(file: Path) -> tuple[Path, ...]:
    """Folders that data may lie in: the model's own, and the one that the model leads into if it is a link."""
    folders = [file.parent.resolve()]
    if file.is_symlink():
        folders.append(file.resolve().parent)
    return tuple(folders)


def _part(tensor: TensorProto, file: Path, homes: tuple[Path, ...]) -> _Part:
    """Find the part that holds `tensor`; without `homes`, links may lead anywhere."""
    entries = _entries(tensor)
    offset = _number("offset", entries.get("offset", "0"))
    size = _size(tensor)
    length = _number("length", entries["length"]) if "length" in entries else size
    if length != size:
        raise _Refused(
            f"got a length of {length} bytes; its shape {list(tensor.dims)} takes {size}. Export it again"
        )
    place = _place(entries.get("location", ""), file, homes)
    try:
        found = place.lstat()
    except FileNotFoundError:
        raise _Refused("it does not exist. Put it beside the model") from None
    _check_kind(found)
    if found.st_size < offset + size:
        raise _Refused(
            f"expected {offset + size} bytes; it has only {found.st_size} and is cut short. Copy it again"
        )
    return _Part(place=place, offset=offset, size=size, found=found)


def _number(name: str, text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise _Refused(
            f"got the {name} {_shown(text)}; expected a number of bytes. Export it again"
        )
    return int(text)


def _size(tensor: TensorProto) -> int:
    """Bytes of a tensor of such type and shape."""
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
    """The file at `location` beside `file`, reached without leaving `homes`; without any, links may lead anywhere."""
    path = PurePosixPath(location)
    if not path.parts or "\0" in location:
        raise _Refused("expected the name of a file beside the model")
    if path.is_absolute() or ".." in path.parts:
        raise _Refused("expected a path that does not leave the model's folder. Export it again")
    folder = file.parent.resolve()
    return _followed(folder, path, homes) if homes else Path(os.path.realpath(folder / path))


def _followed(folder: Path, path: PurePosixPath, homes: tuple[Path, ...]) -> Path:
    """Go from `folder` along `path` and its links; whatever lies beyond `homes` is not even looked at."""
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
                "got a link that leads out of the model's folder; --allow-external-links follows it, if you trust the model"
            )
        left.extend(reversed(target.relative_to(home).parts))
        place = home
    return place


def _read(part: _Part) -> bytes:
    """The bytes of a part; never waits for a pipe or a device that took the file's place meanwhile."""
    descriptor = os.open(part.place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        _check_kind(os.fstat(descriptor))
        stream.seek(part.offset)
        data = stream.read(part.size)
    if len(data) != part.size:
        raise _Refused(f"it ends {part.size - len(data)} bytes early. Copy it again")
    return data


def _check_kind(found: os.stat_result) -> None:
    """Reject what is no regular file of a disk."""
    made_up = {Path(root).stat().st_dev for root in _KERNEL_FILES if Path(root).exists()}
    if not stat.S_ISREG(found.st_mode) or found.st_dev in made_up:
        raise _Refused("expected a regular file. Export it again")


def _shown(text: str, most: int = 80) -> str:
    """A text of the model's in a message: on one line, and short."""
    return repr(text if len(text) <= most else f"{text[:most]}…")
