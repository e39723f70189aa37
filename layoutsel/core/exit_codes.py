"""How the command line ends where it does not succeed."""

from __future__ import annotations

import errno

USER_ERROR, INTERNAL_ERROR, INTERRUPTED = 2, 1, 130

_OF_THE_PLACE = frozenset(
    {
        *(
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EROFS,
            errno.EACCES,
            errno.EPERM,
            errno.EIO,
        ),
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO),
        *(errno.EMFILE, errno.ENFILE, errno.EBADF, errno.ESTALE),
    }
)
"""Errors of the operating system that tell of disks, permissions and names, which are the user's to change."""


def place_error(error: OSError) -> str | None:
    """Say what is wrong with a file or a disk; None for an error of another kind."""
    if error.errno not in _OF_THE_PLACE:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}; make room, or choose another place"
