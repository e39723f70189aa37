"""Check that a search goes on with the question that its folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layoutsel import documents
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_same(held: DataclassInstance, asked: DataclassInstance, file: Path) -> None:
    """Reject to go on with another search."""
    for name in (one.name for one in fields(held)):
        if getattr(held, name) != getattr(asked, name):
            raise LayoutselError(
                f"{file}: got a search with another {name}; expected the same search to go on "
                f"with: {_difference(getattr(held, name), getattr(asked, name))}. Choose another "
                "folder for a new search"
            )


def _difference(held: object, asked: object) -> str:
    """First difference of two documents, as text."""
    one, other = documents.to_json(held), documents.to_json(asked)
    path = "$"
    while type(one) is type(other) and isinstance(one, (dict, list)):
        keys: Sequence[Any] = (
            list({**one, **other}) if isinstance(one, dict) else range(max(len(one), len(other)))
        )
        key = next(key for key in keys if _at(one, key) != _at(other, key))
        path += f".{key}" if isinstance(one, dict) else f"[{key}]"
        one, other = _at(one, key), _at(other, key)
    return f"at {path}, {one!r} there and {other!r} here"


def _at(value: Any, key: Any) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    return value[key] if key < len(value) else None
