"""Freed memory, which the C library keeps for later until it is told otherwise. Importing this does not import TVM."""

from __future__ import annotations

import contextlib
import ctypes


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
