"""Versions of the files that layoutsel writes, and what to do about a file of another version."""

from __future__ import annotations

from collections.abc import Sequence


def expected_version(found: int, known: Sequence[int], renew: str) -> str:
    """Name the versions that are read, and the way out for a file of version `found`.

    Parameters
    ----------
    found
        Version of the file, which is not read.
    known
        Versions that are read, in ascending order.
    renew
        Advice on an older file with the command that makes it again, such as
        ``Train it again with 'layoutsel train LOG -o model'``.
    """
    newer = "The file is newer than this layoutsel: upgrade layoutsel"
    return f"{' or '.join(map(str, known))}. {newer if found > max(known) else renew}"
