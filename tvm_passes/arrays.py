"""Constants as numpy arrays and back, on pages of memory of their own where they are large.

Pages of their own go back to the system as soon as nobody reads them; the heap would keep them.
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
"""Size from which a constant gets pages of its own: smaller ones are not worth it."""
PIECE_BYTES = 8 << 20
"""Bytes of a large array that are worked on at once."""
_ALIGNMENT = 64
"""Bytes; what TVM asks of memory that it takes over."""
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_KINDS = "biuf"
"""Numpy's letters of the kinds of elements that DLPack knows."""


class _Pages(mmap.mmap):
    """Anonymous memory of one array; a type of its own tells it from mapped files."""


def own_pages(shape: tuple[int, ...], dtype: str | np.dtype) -> np.ndarray:
    """An array of zeros on pages of its own, to write a large result into piece by piece; on the heap where it is small.

    :func:`constant_of` and the pool of weights take over such pages without a copy: write nothing into them afterwards.
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
    """Slices of an axis of `count`, of an array of `nbytes`: what is made of one takes a few :data:`PIECE_BYTES`."""
    each = max(1, count * PIECE_BYTES // max(nbytes, 1))
    for start in range(0, count, each):
        yield slice(start, min(start + each, count))


def on_own_pages(array: np.ndarray) -> np.ndarray:
    """`array` itself if it fills pages of its own and can be handed over, else a copy that does."""
    if pages_of(array) is not None and array.flags.writeable:
        return array
    copy = own_pages(array.shape, array.dtype)
    copy[...] = array
    return copy


def pages_of(array: np.ndarray) -> np.ndarray | None:
    """The bytes that `array` fills, in order, if they are pages of its own; else None."""
    memory = array
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    is_own = isinstance(_exporter(memory), _Pages)
    return memory if is_own and array.flags.c_contiguous and array.nbytes == memory.nbytes else None


def _exporter(memory: np.ndarray) -> object:
    """The object that `memory` was made from."""
    return memory.base.obj if isinstance(memory.base, memoryview) else memory.base


def constant_of(array: np.ndarray | np.generic) -> Constant:
    """Relax constant that holds a copy of `array`, or takes it over if it fills pages of its own.

    TVM's own function makes int32 of int64, and float32 of float64.
    """
    array = np.asarray(array)
    if array.nbytes >= SMALLEST_BYTES and _is_plain(array):
        return constant_in_place(on_own_pages(array))
    return relax.const(tvm.runtime.tensor(np.ascontiguousarray(array).reshape(np.shape(array))))


def constant_in_place(array: np.ndarray | np.generic) -> Constant:
    """Relax constant on the memory of `array`, which is not to change from then on.

    On a copy where `array` is small, and would keep much more memory than its own, or TVM cannot take it.
    """
    array = np.asarray(array)
    flags, aligned = array.flags, array.ctypes.data % _ALIGNMENT == 0
    is_large = array.nbytes >= SMALLEST_BYTES
    if is_large and aligned and flags.c_contiguous and flags.writeable and _is_plain(array):
        return constant_on(array.reshape(-1).view(np.uint8), array.shape, array.dtype.name)
    return constant_of(array)


def _is_plain(array: np.ndarray) -> bool:
    return array.dtype.name == "bfloat16" or (
        array.dtype.isbuiltin == 1 and array.dtype.kind in _KINDS
    )


def constant_on(memory: np.ndarray, shape: tuple[int, ...], dtype: str) -> Constant:
    """A constant of that type on the first bytes of `memory`."""
    is_bfloat16 = dtype == "bfloat16"
    values = memory.view(np.uint16 if is_bfloat16 else np.dtype(dtype)).reshape(shape)
    tensor = tvm.runtime.from_dlpack(values)
    if is_bfloat16:
        tensor = tensor._create_view(shape, dtype=dtype)
    return relax.const(tensor)


def array_of(constant: Constant) -> np.ndarray:
    """An array on the memory of `constant`, which it keeps; not to be written into. A copy of types that numpy lacks."""
    tensor = constant.value
    try:
        if str(tensor.dtype) != "bfloat16":
            return np.from_dlpack(tensor)
        bits = tensor._create_view(tensor.shape, dtype="uint16")
        return np.from_dlpack(bits).view(ml_dtypes.bfloat16)
    except (RuntimeError, BufferError, TypeError):
        return constant.value.numpy()
