"""Digests of the code, kept in the user's cache: computing them parses every file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from layoutsel.documents import from_json, load_json, save
from tvm_passes.errors import LayoutselError

FILE = "code-digests.json"
"""Name of the file in the cache folder."""


@dataclass(frozen=True, kw_only=True)
class KeptDigests:
    """Digests, and the source that they hold for."""

    source: str
    """Hash of everything that the digests depend on."""
    digests: Mapping[str, str]
    """Digests by the name of a version."""


def kept_digests(source: str, compute: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
    """Return the kept digests if they hold for `source`; compute and keep them otherwise.

    A file that is missing or damaged is replaced. Nothing is kept in a folder that cannot be
    written to.
    """
    file = Path(platformdirs.user_cache_dir("layoutsel")) / FILE
    with contextlib.suppress(LayoutselError):
        kept = from_json(KeptDigests, load_json(file), file=str(file))
        if kept.source == source:
            return kept.digests
    found = compute()
    with contextlib.suppress(OSError, LayoutselError):
        file.parent.mkdir(parents=True, exist_ok=True)
        save(KeptDigests(source=source, digests=found), file)
    return found
