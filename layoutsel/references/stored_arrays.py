"""Arrays in a temporary file, which another process maps: weights reach it without a second copy in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layoutsel.runtime.arrays import bits_of, dtype_of

_ALIGNMENT = 64
_FILE = "weights"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where an array lies in the file."""

    shape: tuple[int, ...]
    dtype: str
    offset: int


@dataclass(frozen=True, kw_only=True)
class StoredArrays:
    """Arrays in a file, in the order in which they were stored. Picklable."""

    file: str
    places: tuple[_Place, ...]

    def mapped(self) -> list[np.ndarray]:
        """The arrays, on the memory of the file; writing into one does not change it."""
        size = Path(self.file).stat().st_size
        data = np.memmap(self.file, np.uint8, "c") if size else np.empty(0, np.uint8)
        arrays = []
        for place in self.places:
            dtype = dtype_of(place.dtype)
            end = place.offset + int(np.prod(place.shape)) * dtype.itemsize
            arrays.append(data[place.offset : end].view(dtype).reshape(place.shape))
        return arrays


class ArrayFile:
    """Keeps :class:`StoredArrays` in a folder of its own, which goes with the object.

    Raises
    ------
    OSError
        If there is no room for them.
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
                del array  # before the next one is made
        self.arrays = StoredArrays(file=str(file), places=tuple(places))
