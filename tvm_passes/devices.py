"""Devices that modules run on, by the kind of their targets. Importing this does not import TVM."""

from __future__ import annotations

import os
from collections.abc import Mapping

HOST = "llvm"
DEVICE_TYPES: Mapping[str, int] = {HOST: 1, "cuda": 2, "opencl": 4}
"""DLPack's numbers of their types."""
_asked_by: dict[str, int] = {}
"""The process that first asked the driver, by kind."""


def ask_driver(kind: str) -> str | None:
    """Take note that this process asks the driver of a kind of device; why it cannot, or None.

    Drivers have threads, which a forked process lacks: it would wait for them for ever.
    """
    if _asked_by.setdefault(kind, os.getpid()) == os.getpid():
        return None
    return (
        "its driver was in use before this process was forked, and works in no forked process; start the process "
        "with 'spawn', or use the device only after the fork"
    )
