"""The user's cache folder, without a dependency on other packages than Python's own."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/layoutsel`` or ``~/.cache/layoutsel``, as ``platformdirs`` does."""
    base = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".cache") / "layoutsel"
