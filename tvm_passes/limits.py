"""Limits of an import: sizes that a small file can ask for, checked on shapes before anything is allocated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tvm_passes.errors import LayoutselError, ModelTooLarge

HINT = "Raise it with --import-limit or ImportLimits where the model really needs that much"
"""Last sentence of every message about a limit."""

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass(frozen=True, kw_only=True)
class ImportLimits:
    """Sizes at which an import stops, for files from cross_target; weights that a file really holds do not count."""

    tensor_bytes: int = 4 << 30
    """Bytes of one tensor that is no stored weight; also of all inputs together, and of all outputs together."""
    constant_bytes: int = 512 << 20
    """Bytes by which all constants that the import computes exceed the constants that they are computed from."""
    nodes: int = 50_000
    """Nodes of the graph, its nested graphs and its functions, each function counted once per call."""
    depth: int = 50
    """Levels of functions that call functions, and of graphs inside nodes."""


_NAMES = {
    "tensor": "tensor_bytes",
    "constants": "constant_bytes",
    "nodes": "nodes",
    "depth": "depth",
}
"""Field of each name that messages and the command line use."""

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s*([KMGT]i?B?|B)?", re.IGNORECASE)


def parse_limits(texts: Sequence[str] | None) -> ImportLimits:
    """Read ``tensor=8GiB`` and the like; what is not named keeps its default.

    Raises
    ------
    LayoutselError
        If a text is something else.
    """
    values: dict[str, int] = {}
    for text in texts or ():
        name, _, size = text.partition("=")
        found = _SIZE.fullmatch(size.strip())
        unit = (found[2] or "").upper() if found else ""
        if name not in _NAMES or found is None or (unit and not _NAMES[name].endswith("_bytes")):
            raise LayoutselError(
                f"--import-limit {text!r}: expected NAME=SIZE with one of {', '.join(_NAMES)}, such as tensor=8GiB or "
                f"nodes=200000"
            )
        values[_NAMES[name]] = int(float(found[1]) * _factor(unit))
    return ImportLimits(**values)


def _factor(unit: str) -> int:
    """Bytes of a unit; KB and KiB are both 1024."""
    return 1 << 10 * (" KMGT".index(unit[0]) if unit and unit[0] != "B" else 0)


class ConstantBudget:
    """The bytes that one import may still compute constants of."""

    def __init__(self, limits: ImportLimits) -> None:
        self._limit = limits.constant_bytes
        self._used = 0

    @property
    def left(self) -> int:
        """Bytes that are not used yet."""
        return max(0, self._limit - self._used)

    def take(self, nbytes: int, what: str) -> None:
        """Account for a constant of `nbytes` more than its arguments, before it is computed.

        Parameters
        ----------
        nbytes
            Bytes of the result less those of the arguments; nothing is given back where it is negative.
        what
            The operation, for the message.

        Raises
        ------
        ModelTooLarge
            If all constants so far exceed the limit.
        """
        self._used += max(0, nbytes)
        if self._used > self._limit:
            raise ModelTooLarge(
                f"{what}: constants computed at import take {format_bytes(self._used)} so far; expected at most "
                f"{format_bytes(self._limit)} (limit 'constants'). {HINT}"
            )


def format_bytes(nbytes: int) -> str:
    """Write a number of bytes in the largest unit that it fills."""
    for size, unit in _UNITS:
        if nbytes >= size:
            return f"{nbytes / size:,.4g} {unit}"
    return f"{nbytes} bytes"
