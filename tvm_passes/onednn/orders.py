"""Orders of elements for which the native plugin has format tags."""

from __future__ import annotations

ORDERS = frozenset({"NCHW", "NHWC", "NCHW4c", "NCHW8c", "NCHW16c", "NCHW32c"})
"""Names of the orders; the same as in ``cmake/onednn/descriptors.cc``."""
