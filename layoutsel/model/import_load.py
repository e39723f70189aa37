"""Read an ONNX model from a file or build a named one, or say in one sentence why that cannot be done."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from layoutsel.errors import InvalidModel, UnsupportedModel
from layoutsel.model import architectures, zoo
from layoutsel.model.import_external import load_external_data

_NAMED: Mapping[str, Callable[[str], ModelProto]] = {
    zoo.PREFIX: zoo.light_model,
    architectures.PREFIX: architectures.architecture,
}
"""Who builds a model that is no file, by what its name starts with."""

_MOST_BYTES = 2**31 - 1
"""Bytes of a serialized protocol buffer."""


def load_model(source: str | os.PathLike[str], *, allow_external_links: bool = False) -> ModelProto:
    """Read the model at a path, external data included, or build ``light:<name>`` or ``arch:<name>``.

    Parameters
    ----------
    allow_external_links
        Whether links among the external data may lead out of the model's folder.

    Raises
    ------
    InvalidModel
        If there is no readable ONNX model at the path, its external data is missing, too short or not the model's to
        read, or there is no model of that name.
    """
    prefix, name = _split(source)
    return _NAMED[prefix](name) if prefix else _read(Path(source), allow_external_links)


def model_name(source: str | os.PathLike[str]) -> str:
    """Name of what :func:`load_model` takes, without prefix, folder and suffix."""
    prefix, name = _split(source)
    return name if prefix else Path(source).stem


def _split(source: str | os.PathLike[str]) -> tuple[str, str]:
    """Prefix of a named model, empty for a file, and what follows it."""
    text = os.fspath(source)
    prefix = next((prefix for prefix in _NAMED if text.startswith(prefix)), "")
    return prefix, text.removeprefix(prefix)


def _read(file: Path, allow_external_links: bool) -> ModelProto:
    _check_file(file)
    model = ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError:
        raise InvalidModel(
            f"{file}: got {file.stat().st_size} bytes that are not an ONNX model, or one cut short or damaged; "
            f"expected a complete .onnx file. Export or download it again"
        ) from None
    check_model(model, str(file))
    load_external_data(model, file, allow_links=allow_external_links)
    return model


def check_model(model: ModelProto, where: str) -> None:
    """Refuse a message that parses and is still no model.

    Raises
    ------
    InvalidModel
        If it has no nodes, no outputs, no operator set or an ancient format version.
    UnsupportedModel
        If its weights are sparse.
    """
    graph = model.graph
    if not graph.node or not graph.output or not model.opset_import:
        raise InvalidModel(
            f"{where}: got a model with {len(graph.node)} nodes, {len(graph.output)} outputs and "
            f"{len(model.opset_import)} operator sets; expected at least one of each. Is it an ONNX file?"
        )
    if model.ir_version < 3:
        raise InvalidModel(
            f"{where}: got ONNX IR version {model.ir_version}; expected 3 or later. Export it again"
        )
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise UnsupportedModel(f"{where}: weight {name!r} is sparse; expected dense weights")
    _check_values(model, where)


def _check_values(model: ModelProto, where: str) -> None:
    """Refuse a graph that reads a tensor that nothing defines."""
    graph = model.graph
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {name for node in graph.node for name in node.output} | {""}
    for node in graph.node:
        for name in node.input:
            if name not in known:
                raise InvalidModel(
                    f"{where}: node {node.name or node.output[0]!r} ({node.op_type}) reads tensor {name!r}, which "
                    f"nothing defines; expected an input, an initializer or another node's output"
                )
    for value in graph.output:
        if value.name not in known:
            raise InvalidModel(
                f"{where}: nothing computes the output {value.name!r}. Export it again"
            )


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise InvalidModel(f"{file}: got a directory; expected an .onnx file inside it")
    if not file.exists():
        raise InvalidModel(
            f"{file}: no such file; expected an .onnx model, light:<name> or arch:<name>"
        )
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
            f"{file}: got {size} bytes; expected at most {_MOST_BYTES}, the limit of the format. Export it with "
            f"external data"
        )
