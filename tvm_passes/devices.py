"""Devices that modules run on, by the kind of their targets. Importing this does not import TVM."""

from __future__ import annotations

from collections.abc import Mapping

HOST = "llvm"
DEVICE_TYPES: Mapping[str, int] = {HOST: 1, "cuda": 2, "opencl": 4}
"""DLPack's numbers of their types."""
