"""Where the native plugins lie, and what they were built of."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path


def find_plugin(name: str, folder: Path) -> Path | None:
    """The library `name`, which lies in a package's `folder`; None if it was not built."""
    return next((path for path in _candidates(name, folder) if path.exists()), None)


def plugin_source(library: str, folder: str) -> str:
    """Digest of the source of the plugin in a package's `folder`, without comments; ``absent`` where it was not built."""
    found = find_plugin(f"{library}.source", Path(__file__).parent / folder)
    return found.read_text(encoding="utf-8").strip() if found else "absent"


def _candidates(name: str, folder: Path) -> Iterator[Path]:
    """An editable installation keeps what was built apart from the sources."""
    try:
        files = importlib.metadata.files("layoutsel") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            yield Path(str(file.locate()))
    yield folder / name
