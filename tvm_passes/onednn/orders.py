"""Orders of elements that the native plugin has format tags for."""

from __future__ import annotations

ORDERS = frozenset({"NCHW", "NHWC", "NCHW4c", "NCHW8c", "NCHW16c", "NCHW32c"})
"""Orders of ``cmake/onednn/descriptors.cc``, by name."""
