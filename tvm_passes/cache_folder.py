"""The user's cache folder, where nothing but Python is installed, too."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Where ``platformdirs`` has it on Linux: ``$XDG_CACHE_HOME/layoutsel``, or ``~/.cache/layoutsel``."""
    base = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".cache") / "layoutsel"
