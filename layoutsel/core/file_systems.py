"""Kinds of file systems, as far as files that several processes share depend on them."""

from __future__ import annotations

from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "gpfs"),
        *("beegfs", "9p", "virtiofs", "fuse"),
    }
)
"""File systems that several machines may share; Linux's names."""
_NETWORK_PREFIX = "fuse."
"""Start of the names of those that programs provide, such as sshfs: most of them lead elsewhere."""


def is_on_network(path: Path | str) -> bool:
    """True if `path` lies on a file system that several machines may share."""
    kind = _kind_of(path)
    return kind in _NETWORK or kind.startswith(_NETWORK_PREFIX)


def _kind_of(path: Path | str) -> str:
    """Linux's name of the file system of `path`; empty where it cannot be told."""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace")
        parts = Path(path).absolute().resolve().parts
    except OSError:
        return ""
    best, kind = -1, ""
    for _, place, found, *_ in (line.split() for line in mounts.splitlines()):
        folder = Path(place.replace("\\040", " ")).parts
        if parts[: len(folder)] == folder and len(folder) >= best:
            best, kind = len(folder), found
    return kind
