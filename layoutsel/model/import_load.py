"""Reading of ONNX models from files, and building of named ones, with clear errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from layoutsel.errors import InvalidModel
from layoutsel.model.import_external import load_external_data
from layoutsel.model.import_structure import check_model
from layoutsel.zoo import architectures, light_models, recorded
from tvm_passes.limits import ImportLimits

_NAMED: Mapping[str, Callable[[str], ModelProto]] = {
    light_models.PREFIX: light_models.light_model,
    architectures.PREFIX: architectures.architecture,
    recorded.PREFIX: recorded.recorded,
}
"""Functions that build named models, by the prefix of the name."""

_MOST_BYTES = 2**31 - 1
"""Maximum size of a serialised protocol buffer, bytes."""

_LFS_POINTER = b"version https://git-lfs"
"""Start of a file that git checks out in place of a large one if git-lfs is missing."""


def load_model(
    source: str | os.PathLike[str],
    *,
    allow_external_links: bool = False,
    limits: ImportLimits | None = None,
) -> ModelProto:
    """Read a model with its external data, or build one of the zoo, such as ``light:resnet50``.

    Parameters
    ----------
    source
        Path of an ONNX file, or name of a model.
    allow_external_links
        True to follow links among the external data out of the model's folder.
    limits
        Limits of the import.

    Raises
    ------
    InvalidModel
        If the path holds no readable ONNX model, its external data is missing, too short or outside
        its folder, or no model has that name.
    """
    prefix, name = _split(source)
    return _NAMED[prefix](name) if prefix else _read(Path(source), allow_external_links, limits)


def model_name(source: str | os.PathLike[str]) -> str:
    """Return the name of a source of :func:`load_model`, without prefix, folder and suffix."""
    prefix, name = _split(source)
    return name if prefix else Path(source).stem


def _split(source: str | os.PathLike[str]) -> tuple[str, str]:
    """Split a source into the prefix of a named model, empty for a file, and the rest."""
    text = os.fspath(source)
    prefix = next((prefix for prefix in _NAMED if text.startswith(prefix)), "")
    return prefix, text.removeprefix(prefix)


def _read(file: Path, allow_external_links: bool, limits: ImportLimits | None) -> ModelProto:
    _check_file(file)
    model = _parsed(file)
    check_model(model, str(file), limits)
    load_external_data(model, file, allow_links=allow_external_links, limits=limits)
    return model


def _parsed(file: Path) -> ModelProto:
    data = file.read_bytes()
    if data.startswith(_LFS_POINTER):
        raise InvalidModel(
            f"{file}: got a pointer of git-lfs; expected the model that it stands for. "
            "Run: git lfs pull"
        )
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise InvalidModel(
            f"{file}: got {len(data)} bytes that are not an ONNX model, or one cut short or "
            f"damaged; expected a complete .onnx file. Export or download it again"
        ) from None
    return model


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise InvalidModel(f"{file}: got a directory; expected an .onnx file inside it")
    if not file.exists():
        named = " or ".join(f"{prefix}<name>" for prefix in _NAMED)
        raise InvalidModel(f"{file}: no such file; expected an .onnx model, or {named}")
    if not file.is_file():
        raise InvalidModel(f"{file}: got a pipe or a device; expected an .onnx file")
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
    except OSError as error:
        raise InvalidModel(f"{file}: cannot be read ({error.strerror})") from None
    if not size:
        raise InvalidModel(f"{file}: got an empty file; expected an ONNX model")
    if size > _MOST_BYTES:
        raise InvalidModel(
            f"{file}: got {size} bytes; expected at most {_MOST_BYTES}, the limit of the format. "
            f"Export it with external data"
        )
