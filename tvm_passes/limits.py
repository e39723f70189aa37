"""Limits of an import: sizes that a small file can cause, checked before anything is allocated.

The time is limited as well.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tvm_passes.errors import LayoutselError, ModelTooLarge

HINT = "Raise it with --import-limit or ImportLimits where the model really needs that much"
"""Last sentence of every message about a limit."""

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
"""Units of sizes, largest first."""


@dataclass(frozen=True, kw_only=True)
class ImportLimits:
    """Sizes and time at which an import stops; weights that a file contains do not count."""

    tensor_bytes: int = 4 << 30
    """Maximum size of a tensor that is no stored weight, of all inputs and of all outputs, bytes.
    """
    constant_bytes: int = 512 << 20
    """Maximum growth of all computed constants over the constants they are computed from, bytes."""
    nodes: int = 50_000
    """Maximum number of nodes of the graph, its nested graphs and its functions.

    Each function counts once per call.
    """
    depth: int = 50
    """Maximum depth of functions that call functions, and of graphs inside nodes."""
    seconds: int = 900
    """Maximum time of the conversion, seconds, checked before each node and pass."""


_NAMES = {
    "tensor": "tensor_bytes",
    "constants": "constant_bytes",
    "nodes": "nodes",
    "depth": "depth",
    "seconds": "seconds",
}
"""Field of each name in messages and on the command line."""

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s*([KMGT]i?B?|B)?", re.IGNORECASE)
"""Syntax of a size."""


def parse_limits(texts: Sequence[str] | None) -> ImportLimits:
    """Read limits such as ``tensor=8GiB``; all others keep their default.

    Raises
    ------
    LayoutselError
        If a text is no limit.
    """
    values: dict[str, int] = {}
    for text in texts or ():
        name, _, size = text.partition("=")
        found = _SIZE.fullmatch(size.strip())
        unit = (found[2] or "").upper() if found else ""
        if name not in _NAMES or found is None or (unit and not _NAMES[name].endswith("_bytes")):
            raise LayoutselError(
                f"--import-limit {text!r}: expected NAME=SIZE with one of {', '.join(_NAMES)}, "
                f"such as tensor=8GiB or nodes=200000"
            )
        limit = float(found[1]) * _factor(unit)
        if limit < 1:
            raise LayoutselError(f"--import-limit {text!r}: expected a size of at least 1")
        values[_NAMES[name]] = int(limit)
    return ImportLimits(**values)


def _factor(unit: str) -> int:
    """Return the bytes of a unit; KB and KiB are both 1024."""
    return 1 << 10 * (" KMGT".index(unit[0]) if unit and unit[0] != "B" else 0)


class ImportBudget:
    """Remaining time of one import, and size of the constants that it may compute."""

    def __init__(self, limits: ImportLimits) -> None:
        self._limit = limits.constant_bytes
        self._used = 0
        self._seconds = limits.seconds
        self._deadline = time.monotonic() + limits.seconds

    @property
    def left(self) -> int:
        """Unused bytes."""
        return max(0, self._limit - self._used)

    def take(self, nbytes: int, what: str) -> None:
        """Account for the growth of a constant over its arguments, before it is computed.

        Parameters
        ----------
        nbytes
            Size of the result minus that of the arguments, bytes. A negative number counts as zero:
            constants that shrink do not increase what is left.
        what
            The operation, for the message.

        Raises
        ------
        ModelTooLarge
            If all constants so far exceed the limit, or no time is left.
        """
        self.check_time(what)
        self._used += max(0, nbytes)
        if self._used > self._limit:
            raise ModelTooLarge(
                f"{what}: constants computed at import take {format_bytes(self._used)} so far; "
                f"expected at most {format_bytes(self._limit)} (limit 'constants'). {HINT}"
            )

    def check_time(self, what: str) -> None:
        """Raise :class:`ModelTooLarge` before the operation `what` if no time is left."""
        if time.monotonic() > self._deadline:
            raise ModelTooLarge(
                f"{what}: the import has taken more than {self._seconds:,} seconds so far "
                f"(limit 'seconds'). {HINT}"
            )


def format_bytes(nbytes: int) -> str:
    """Write a number of bytes in the largest unit that it fills."""
    for size, unit in _UNITS:
        if nbytes >= size:
            return f"{nbytes / size:,.4g} {unit}"
    return f"{nbytes} bytes"
