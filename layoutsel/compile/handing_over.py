"""Transfer of packed weights from a forked copy of this process to its parent.

A weight that the parent already holds is identified by the digest of its content. The contents of
other weights are sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.device.forked import Forked
from layoutsel.runtime.arrays import dtype_of
from tvm_passes.arrays import own_pages
from tvm_passes.weight_pool import WeightPool


@dataclass(frozen=True, kw_only=True)
class NamedWeight:
    """A weight of the pool."""

    digest: bytes
    """Digest of the content."""
    shape: tuple[int, ...]
    """Shape of the weight."""
    dtype: str
    """Element type of the weight."""
    nbytes: int
    """Size of the weight, bytes."""
    is_sent: bool
    """True if the content is sent, because the parent lacks it."""


Entry = NamedWeight | np.ndarray
"""A weight: identified by its digest, or a small one as its value."""


def entries(
    weights: Sequence[np.ndarray], pool: WeightPool, held: Mapping[bytes, np.ndarray]
) -> tuple[list[Entry], list[np.ndarray]]:
    """Describe the weights of a built model to the parent process; runs in the forked copy.

    Parameters
    ----------
    weights
        Weights of the built model.
    pool
        Pool of the packed weights.
    held
        Contents in the parent, by digest.

    Returns
    -------
    tuple
        Entry of each weight, and the contents to send.
    """
    digests = {memory.ctypes.data: digest for digest, memory in pool.in_use().items()}
    table: list[Entry] = []
    contents: dict[bytes, np.ndarray] = {}
    for weight in weights:
        digest = digests.get(weight.ctypes.data)
        if digest is None:
            table.append(np.array(weight))
            continue
        is_sent = digest not in held and digest not in contents
        if is_sent:
            contents[digest] = weight.reshape(-1).view(np.uint8)
        table.append(
            NamedWeight(
                digest=digest,
                shape=weight.shape,
                dtype=weight.dtype.name,
                nbytes=weight.nbytes,
                is_sent=is_sent,
            )
        )
    return table, list(contents.values())


def received(
    table: Sequence[Entry], child: Forked, pool: WeightPool, held: Mapping[bytes, np.ndarray]
) -> list[np.ndarray]:
    """Receive the weights that `table` describes; runs in the parent process.

    Parameters
    ----------
    table
        Entry of each weight.
    child
        Copy of this process that sends the contents.
    pool
        Pool of the packed weights.
    held
        Contents in this process, by digest.
    """
    memory = {**pool.in_use(), **held}
    weights = []
    for entry in table:
        if isinstance(entry, np.ndarray):
            weights.append(entry)
            continue
        if entry.is_sent:
            memory[entry.digest] = _received(entry, child, pool, memory.get(entry.digest))
        values = memory[entry.digest].view(dtype_of(entry.dtype))
        weights.append(values.reshape(entry.shape))
    return weights


def _received(
    entry: NamedWeight, child: Forked, pool: WeightPool, known: np.ndarray | None
) -> np.ndarray:
    """Receive a content; returns its memory, or that of an equal content that exists by now."""
    memory = own_pages((entry.nbytes,), "uint8")
    child.receive_into(memory.data)
    return pool.adopt(entry.digest, memory) if known is None else known
