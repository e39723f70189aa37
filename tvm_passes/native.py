"""Location of the native plugins, and the digest of their sources."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path


def find_plugin(name: str, folder: Path) -> Path | None:
    """Return the library `name` of a package's `folder`; None if it was not built."""
    return next((path for path in _candidates(name, folder) if path.exists()), None)


def plugin_source(library: str, folder: str) -> str:
    """Return the digest of a plugin's source without comments; ``absent`` if it was not built."""
    found = find_plugin(f"{library}.source", Path(__file__).parent / folder)
    return found.read_text(encoding="utf-8").strip() if found else "absent"


def _candidates(name: str, folder: Path) -> Iterator[Path]:
    """Yield possible paths of a library; an editable installation keeps it elsewhere."""
    try:
        files = importlib.metadata.files("layoutsel") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            yield Path(str(file.locate()))
    yield folder / name
