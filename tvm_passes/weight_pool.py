"""Packed weights that several modules share: equal ones are in memory once, while they are used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakValueDictionary

import numpy as np

from tvm_passes.arrays import (
    SMALLEST_BYTES,
    array_of,
    constant_of,
    constant_on,
    on_own_pages,
    pages_of,
)
from tvm_passes.ir import Constant

TRIM_BYTES = 32 << 20
"""Size of packed weights after which the C library is asked to release freed memory, bytes."""


class WeightPool:
    """Constants by content; the pool does not keep their memory alive.

    Parameters
    ----------
    give_back
        Called occasionally while weights are packed, to release memory that is no longer needed.
    """

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = give_back
        self._memory: WeakValueDictionary[bytes, np.ndarray] = WeakValueDictionary()
        self._since_trim_bytes = 0

    @property
    def nbytes(self) -> int:
        """Size of the constants that are in use, bytes."""
        return sum(memory.nbytes for memory in list(self._memory.values()))

    def constant(self, array: np.ndarray) -> Constant:
        """Return a constant of `array`; on the memory of an equal one, if there is one."""
        array = np.ascontiguousarray(array)
        content = array.reshape(-1).view(np.uint8)
        digest = hashlib.sha256(repr((array.shape, array.dtype.name)).encode())
        digest.update(content.data)
        memory = self._memory.get(digest.digest())
        if memory is None:
            memory = self.adopt(digest.digest(), on_own_pages(array))
        self._since_trim_bytes += content.nbytes
        if self._since_trim_bytes >= TRIM_BYTES:
            self._since_trim_bytes = 0
            self._give_back()
        return constant_on(memory, array.shape, array.dtype.name)

    def adopt(self, digest: bytes, pages: np.ndarray) -> np.ndarray:
        """Take over an array on separate pages, whose content has `digest`; returns its bytes."""
        memory = pages_of(pages)
        assert memory is not None, "it was put there"
        self._memory[digest] = memory
        return memory

    def in_use(self) -> dict[bytes, np.ndarray]:
        """Return the memory of all constants that are in use, by digest."""
        return dict(self._memory.items())


_current: ContextVar[WeightPool | None] = ContextVar("layoutsel.weights", default=None)


@contextmanager
def sharing(pool: WeightPool) -> Iterator[None]:
    """Keep the weights that are packed in this context in `pool`."""
    token = _current.set(pool)
    try:
        yield
    finally:
        _current.reset(token)


def packed_constant(array: np.ndarray) -> Constant:
    """Return a constant of `array`, in the current pool if there is one."""
    pool = _current.get()
    if pool is None or array.nbytes < SMALLEST_BYTES:
        return constant_of(array)
    return pool.constant(array)


def packed_by(pack: Callable[[np.ndarray], np.ndarray], weights: Constant) -> Constant:
    """Return the constant of the packed `weights`; the same constant if packing changes nothing."""
    source = array_of(weights)
    source.flags.writeable = False
    packed = pack(source)
    return weights if packed is source else packed_constant(packed)
