"""Arrays in a temporary file that other processes map, without a second copy in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layoutsel.runtime.arrays import bits_of, dtype_of

_ALIGNMENT = 64
"""Alignment of arrays within the file, bytes."""
_FILE = "weights"
"""Name of the file."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Position and type of an array in the file."""

    shape: tuple[int, ...]
    """Dimensions."""
    dtype: str
    """Element type, as numpy spells it."""
    offset: int
    """Offset in the file, bytes."""


@dataclass(frozen=True, kw_only=True)
class StoredArrays:
    """Picklable reference to arrays in a file, in their original order."""

    file: str
    """Path of the file."""
    places: tuple[_Place, ...]
    """Position and type of each array."""

    def mapped(self) -> list[np.ndarray]:
        """Map the arrays copy-on-write."""
        size = Path(self.file).stat().st_size
        data = np.memmap(self.file, np.uint8, "c") if size else np.empty(0, np.uint8)
        arrays = []
        for place in self.places:
            dtype = dtype_of(place.dtype)
            end = place.offset + int(np.prod(place.shape)) * dtype.itemsize
            arrays.append(data[place.offset : end].view(dtype).reshape(place.shape))
        return arrays


class ArrayFile:
    """Owner of a temporary file of arrays, which is removed with this object.

    Parameters
    ----------
    arrays
        Arrays to store; each is freed before the next is made.

    Raises
    ------
    OSError
        If the disk is full.
    """

    def __init__(self, arrays: Iterable[np.ndarray]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="layoutsel-")
        file = Path(self._folder.name) / _FILE
        places = []
        with file.open("wb") as stream:
            for array in arrays:
                stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
                places.append(
                    _Place(shape=array.shape, dtype=array.dtype.name, offset=stream.tell())
                )
                stream.write(np.ascontiguousarray(bits_of(array)).data)
                del array  # frees it before the iterator makes the next
        self.arrays = StoredArrays(file=str(file), places=tuple(places))
