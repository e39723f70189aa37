"""Detection of network file systems, where locks and file sharing work differently."""

from __future__ import annotations

from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "gpfs"),
        *("beegfs", "9p", "virtiofs", "fuse"),
    }
)
"""Linux's names of file systems that several machines may share."""
_NETWORK_PREFIX = "fuse."
"""Start of the names of file systems that user programs provide, such as sshfs; most are remote."""


def is_on_network(path: Path | str) -> bool:
    """True if `path` lies on a file system that several machines may share."""
    kind = _kind_of(path)
    return kind in _NETWORK or kind.startswith(_NETWORK_PREFIX)


def _kind_of(path: Path | str) -> str:
    """Linux's name of the file system of `path`; empty if it is unknown."""
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
