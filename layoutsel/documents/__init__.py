"""Frozen dataclasses as JSON documents, read and written strictly.

A malformed document is one error with the file, the path inside the document, the value it got and
the value it expected.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from layoutsel.core.file_versions import expected_version
from layoutsel.core.files import write_text
from tvm_passes.decision import Decision
from tvm_passes.devices import DeviceId
from tvm_passes.errors import IllegalDecision, IllegalDevice, LayoutselError

T = TypeVar("T")
"""Dataclass that a document is read as."""

OPTIONAL: Mapping[str, Any] = {"optional": True}
"""Metadata of a dataclass field that documents omit while it has its default value."""


class DocumentError(LayoutselError):
    """A file that is not a document of the expected type.

    Parameters
    ----------
    file
        Name of the file.
    path
        Place inside the document, such as ``$.nodes[3].unit``.
    got
        The value at that place.
    expected
        The legal values.
    """

    def __init__(self, file: str, path: str, got: str, expected: str) -> None:
        super().__init__(f"{file}: at {path}: got {got}; expected {expected}")


def to_json(value: Any) -> Any:
    """Convert `value`, made of dataclasses, mappings, tuples and scalars, to JSON's types."""
    if isinstance(value, Decision | DeviceId):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: to_json(v) for f, v in fields if not (_is_optional(f) and v == _default(f))}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(type_: type[T], value: Any, *, file: str = "document", path: str = "$") -> T:
    """Read parsed JSON as the dataclass `type_`.

    Parameters
    ----------
    type_
        Dataclass of the document.
    value
        Parsed JSON.
    file
        Name of the file, for error messages.
    path
        Place of `value` inside the document, for error messages.

    Raises
    ------
    DocumentError
        At the first value that does not fit.
    """
    return typing.cast(T, _read(type_, value, file, path))


def check_version(
    document: Any,
    name: str,
    known: Sequence[int],
    *,
    renew: str,
    file: str = "document",
    path: str = "$",
) -> None:
    """Reject a document whose version is not read; a document without a version is accepted.

    Parameters
    ----------
    document
        Parsed JSON.
    name
        Field of the version.
    known
        Versions that are read, in ascending order.
    renew
        Advice on a document that is too old.
    file
        Name of the file, for error messages.
    path
        Place of `document` inside the file, for error messages.

    Raises
    ------
    DocumentError
        If the version is not in `known`.
    """
    found = document.get(name) if isinstance(document, dict) else None
    if type(found) is int and found not in known:
        expected = expected_version(found, known, renew)
        raise DocumentError(file, f"{path}.{name}", str(found), expected)


def as_text(value: Any) -> str:
    """Text of the JSON document for `value`."""
    return json.dumps(to_json(value), indent=2, allow_nan=False) + "\n"


def save(value: Any, file: Path | str) -> None:
    """Write `value` to `file` atomically: readers see the old document or the complete new one.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    write_text(file, as_text(value))


def load_json(file: Path | str) -> Any:
    """Parse a JSON file; raises :class:`DocumentError` if it is unreadable or not valid JSON."""
    return parse_json(read_text(file), str(file))


def read_text(file: Path | str) -> str:
    """Read a file of text; raises :class:`DocumentError` if it is unreadable."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DocumentError(str(file), "$", "no such file", "a JSON document") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(str(file), "$", str(error), "a readable UTF-8 file") from error


def parse_json(text: str, file: str) -> Any:
    """Parse the text of a JSON document; raises :class:`DocumentError` if it is not valid JSON."""
    try:
        return json.loads(text, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DocumentError(file, where, error.msg, "valid JSON") from error
    except ValueError as error:
        raise DocumentError(file, "$", str(error), "a finite number") from error
    except RecursionError as error:
        raise DocumentError(file, "$", "endless nesting", "valid JSON") from error


def _reject_constant(name: str) -> float:
    """Reject ``NaN`` and ``Infinity``, which JSON does not have."""
    raise ValueError(name)


def _read(type_: Any, value: Any, file: str, path: str) -> Any:
    """Read `value` as any type that a field of a document may have."""
    origin = typing.get_origin(type_)
    if type_ in _TEXTS:
        return _read_text(type_, value, file, path)
    if dataclasses.is_dataclass(type_):
        return _read_dataclass(type_, value, file, path)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [a for a in typing.get_args(type_) if a is not types.NoneType]
        return None if value is None else _read(inner, value, file, path)
    if origin is tuple:
        _require(isinstance(value, list), value, "a list", file, path)
        inner = typing.get_args(type_)[0]
        return tuple(_read(inner, v, file, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        _require(isinstance(value, dict), value, "an object", file, path)
        inner = typing.get_args(type_)[1]
        return {k: _read(inner, v, file, f"{path}.{k}") for k, v in value.items()}
    while hasattr(type_, "__supertype__"):  # a NewType reads as the type below it
        type_ = type_.__supertype__
    expected, holds = _SCALARS[type_]
    _require(holds(value), value, expected, file, path)
    return float(value) if type_ is float else value


def _read_text(type_: Any, value: Any, file: str, path: str) -> Any:
    """Read a value that documents write as one string."""
    example, form = _TEXTS[type_]
    _require(isinstance(value, str), value, example, file, path)
    try:
        return type_.parse(value)
    except (IllegalDecision, IllegalDevice) as error:
        raise DocumentError(file, path, repr(value), form) from error


def _read_dataclass(type_: Any, value: Any, file: str, path: str) -> Any:
    _require(isinstance(value, dict), value, "an object", file, path)
    hints = _field_types(type_)
    fields = {f.name: f for f in dataclasses.fields(type_)}
    for name in value:
        if name not in fields:
            known = ", ".join(fields)
            raise DocumentError(file, f"{path}.{name}", "an unknown field", f"one of {known}")
    for name, field in fields.items():
        if name not in value and not _is_optional(field):
            raise DocumentError(file, f"{path}.{name}", "nothing", "this field")
    read = {
        n: _read(hints[n], value[n], file, f"{path}.{n}") if n in value else _default(field)
        for n, field in fields.items()
    }
    # Computed fields are written for other programs; check that they agree with the rest.
    made = type_(**{name: read[name] for name, field in fields.items() if field.init})
    for name, field in fields.items():
        if not field.init and getattr(made, name) != read[name]:
            follows = f"{to_json(getattr(made, name))}, which follows from the other fields"
            raise DocumentError(file, f"{path}.{name}", str(to_json(read[name])), follows)
    return made


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _is_optional(field: dataclasses.Field[Any]) -> bool:
    return bool(field.metadata.get("optional"))


@functools.cache
def _field_types(type_: Any) -> dict[str, Any]:
    return typing.get_type_hints(type_)


def _require(holds: bool, value: Any, expected: str, file: str, path: str) -> None:
    if not holds:
        shown = json.dumps(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise DocumentError(file, path, shown, expected)


def _is_integer(value: Any) -> bool:
    """True for an integer of 64 bits; products of a few of them are still finite as floats."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_number(value: Any) -> bool:
    """True for a number that is finite as a float; JSON's integers may exceed every float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


_TEXTS: dict[Any, tuple[str, str]] = {
    Decision: (
        "a decision such as 'onednn:NHWC'",
        "unit[@[node/]index]:layout[:precision[:algorithm]]",
    ),
    DeviceId: ("a device such as 'cuda/1'", "[node/]kind/index"),
}
"""Types that documents write as one string, with an example and the form."""
_SCALARS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("a string", lambda v: isinstance(v, str)),
    int: ("an integer", _is_integer),
    bool: ("true or false", lambda v: isinstance(v, bool)),
    float: ("a finite number", is_number),
}
"""Name and check of a parsed value, by type of its field."""
