"""Archives of arrays (``.npz``), read without pickles and within a limit of memory."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from layoutsel.core.memory_limits import most_bytes
from tvm_passes.errors import LayoutselError


class ArraysError(LayoutselError):
    """A file that is not a readable archive of arrays."""


def read_arrays(file: Path | str, limit_bytes: int | None = None) -> Mapping[str, np.ndarray]:
    """Read all arrays of an ``.npz`` file.

    Parameters
    ----------
    file
        Name of the file.
    limit_bytes
        Largest size of all arrays, bytes, as a small compressed file may hold huge ones; half of a
        process's share of the memory if None.

    Raises
    ------
    ArraysError
        If the file is unreadable, not an archive of numbers, or too large.
    """
    limit_bytes = most_bytes() // 2 if limit_bytes is None else limit_bytes
    try:
        # Reading a device or a pipe would not end; a missing file is an error of the system.
        if not stat.S_ISREG(Path(file).stat().st_mode):
            raise ArraysError(f"cannot read {file}: not a regular file; expected an .npz file")
        if not zipfile.is_zipfile(file):
            raise ArraysError(
                f"{file} is not a valid .npz file of numbers: got a single array, or another "
                f"format; expected an archive of arrays (np.savez)"
            )
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > limit_bytes:
            raise ArraysError(
                f"{file}: got arrays of {size / 1e9:.2g} GB; expected at most "
                f"{limit_bytes / 1e9:.2g} GB. Use fewer samples"
            )
        with np.load(file, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        reason = error.strerror or str(error)
        raise ArraysError(f"cannot read {file}: {reason}") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ArraysError(f"{file} is not a valid .npz file of numbers: {reason}") from error
