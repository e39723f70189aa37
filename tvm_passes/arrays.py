"""Constants as numpy arrays and back; large ones are on separate pages of memory.

Separate pages return to the system as soon as they are unused; the heap would keep them.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import tvm
from tvm import relax
from tvm.ir.expr import GenericConst as Constant

SMALLEST_BYTES = 64 << 10
"""Minimum size of a constant on separate pages, bytes."""
PIECE_BYTES = 8 << 20
"""Part of a large array that is processed in one step, bytes."""
_ALIGNMENT = 64
"""Alignment that TVM requires of memory which it takes over, bytes."""
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
"""Flags of anonymous memory."""
_KINDS = "biuf"
"""Numpy's letters of the element kinds that DLPack supports."""


class _Pages(mmap.mmap):
    """Anonymous memory of one array; the type distinguishes it from mapped files."""


def own_pages(shape: tuple[int, ...], dtype: str | np.dtype) -> np.ndarray:
    """Make an array of zeros on separate pages, to write a large result into piece by piece.

    Small arrays are on the heap. :func:`constant_of` and the pool of weights take over such pages
    without a copy: do not write into them afterwards.
    """
    element = np.dtype(dtype)
    nbytes = math.prod(shape) * element.itemsize
    if nbytes >= SMALLEST_BYTES:
        memory = np.frombuffer(_Pages(-1, nbytes, _PRIVATE), np.uint8)
    else:
        memory = np.zeros(nbytes + _ALIGNMENT, np.uint8)
        memory = memory[-memory.ctypes.data % _ALIGNMENT :][:nbytes]
    return memory.view(element).reshape(shape)


def pieces(count: int, nbytes: int) -> Iterator[slice]:
    """Yield slices of an axis of `count` elements, for an array of `nbytes`.

    The results computed from one slice take a few :data:`PIECE_BYTES`.
    """
    each = max(1, count * PIECE_BYTES // max(nbytes, 1))
    for start in range(0, count, each):
        yield slice(start, min(start + each, count))


def on_own_pages(array: np.ndarray) -> np.ndarray:
    """Return `array` if it fills separate pages and can be handed over, else a copy that does."""
    if pages_of(array) is not None and array.flags.writeable:
        return array
    copy = own_pages(array.shape, array.dtype)
    copy[...] = array
    return copy


def pages_of(array: np.ndarray) -> np.ndarray | None:
    """Return the bytes of `array`, in order, if they are separate pages, else None."""
    memory = array
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    is_own = isinstance(_exporter(memory), _Pages)
    return memory if is_own and array.flags.c_contiguous and array.nbytes == memory.nbytes else None


def _exporter(memory: np.ndarray) -> object:
    """Return the object that provides the memory of an array."""
    return memory.base.obj if isinstance(memory.base, memoryview) else memory.base


def constant_of(array: np.ndarray | np.generic) -> Constant:
    """Make a Relax constant of `array`: a copy, or its own memory if that is separate pages.

    ``relax.const`` would narrow int64 to int32, and float64 to float32.
    """
    array = np.asarray(array)
    if array.nbytes >= SMALLEST_BYTES and _is_plain(array):
        return constant_in_place(on_own_pages(array))
    return relax.const(tvm.runtime.tensor(np.ascontiguousarray(array).reshape(np.shape(array))))


def constant_in_place(array: np.ndarray | np.generic) -> Constant:
    """Make a Relax constant on the memory of `array`, which must not change afterwards.

    It is a copy if `array` is small, if it would keep much more memory than its own, or if TVM
    cannot take its memory over.
    """
    array = np.asarray(array)
    flags, aligned = array.flags, array.ctypes.data % _ALIGNMENT == 0
    is_large = array.nbytes >= SMALLEST_BYTES
    if is_large and aligned and flags.c_contiguous and flags.writeable and _is_plain(array):
        return constant_on(array.reshape(-1).view(np.uint8), array.shape, array.dtype.name)
    return constant_of(array)


def _is_plain(array: np.ndarray) -> bool:
    """Return whether TVM and DLPack know the element type."""
    return array.dtype.name == "bfloat16" or (
        array.dtype.isbuiltin == 1 and array.dtype.kind in _KINDS
    )


def constant_on(memory: np.ndarray, shape: tuple[int, ...], dtype: str) -> Constant:
    """Make a constant of the given type on the first bytes of `memory`."""
    is_bfloat16 = dtype == "bfloat16"
    values = memory.view(np.uint16 if is_bfloat16 else np.dtype(dtype)).reshape(shape)
    tensor = tvm.runtime.from_dlpack(values)
    if is_bfloat16:
        tensor = tensor._create_view(shape, dtype=dtype)
    return relax.const(tensor)


def array_of(constant: Constant) -> np.ndarray:
    """Return a read-only array on the memory of `constant`, which it keeps alive.

    Types that numpy lacks are copied.
    """
    tensor = constant.value
    try:
        if str(tensor.dtype) != "bfloat16":
            return np.from_dlpack(tensor)
        bits = tensor._create_view(tensor.shape, dtype="uint16")
        return np.from_dlpack(bits).view(ml_dtypes.bfloat16)
    except (RuntimeError, BufferError, TypeError):
        return constant.value.numpy()
