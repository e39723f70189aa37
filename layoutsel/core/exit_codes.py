"""Exit codes of the command line, and operating-system errors that a user can correct."""

from __future__ import annotations

import errno

USER_ERROR, INTERNAL_ERROR, INTERRUPTED = 2, 1, 130
"""Exit codes: an error that the user can correct, a bug of layoutsel, Ctrl-C."""

_PLACE_ERRNOS = frozenset(
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
"""Error numbers about disks, permissions and file names."""


def place_error(error: OSError) -> str | None:
    """Explain an error about a file or a disk; None for any other error."""
    if error.errno not in _PLACE_ERRNOS:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}; make room, or choose another place"
