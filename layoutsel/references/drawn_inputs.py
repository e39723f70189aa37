"""Seeded inputs that fit their use in a network, with optional extremes; needs numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from layoutsel.device.signature import Signature
from layoutsel.runtime.samples import random_inputs, within

LARGE = 1e4
"""Magnitude of large numbers among extreme inputs."""
LARGE_HALF = 1e2
"""Magnitude of large float16 numbers, whose range ends at 65504."""


class DrawnUse(Protocol):
    """Protocol for the use of an input, which :mod:`layoutsel.model.input_use` finds."""

    @property
    def kind(self) -> str:
        """Key of this module's table; other kinds are plain numbers."""
        ...

    @property
    def size(self) -> int | None:
        """Extent of the axis that indices refer to, if known."""
        ...


def drawn_inputs(
    signatures: Sequence[Signature],
    uses: Mapping[str, DrawnUse],
    seed: int = 0,
    *,
    extreme: bool = False,
) -> list[np.ndarray]:
    """Draw seeded inputs, each according to its use.

    Extreme masks have one row that is masked entirely. Extreme indices are at the ends of their
    ranges. Extreme numbers contain zeros and large magnitudes, but only in networks without masks
    and indices, as large numbers magnify any rounding error.

    Parameters
    ----------
    signatures
        Inputs of the model, in order.
    uses
        Use of each input, by name; others are plain numbers.
    seed
        Seed of the values.
    extreme
        True for extreme values.
    """
    are_numbers = extreme and are_all_numbers(uses)
    plain = random_inputs(signatures, seed)
    drawn = []
    for index, (signature, value) in enumerate(zip(signatures, plain, strict=True)):
        generator = np.random.default_rng((seed, index, extreme))
        use = uses.get(signature.name)
        one = value
        if use is not None and use.kind in _DRAWN:
            one = _DRAWN[use.kind](generator, value, use.size, extreme)
        elif are_numbers and "float" in signature.dtype:
            one = _large(generator, value)
        if signature.ranges and (use is None or use.kind not in _ORDERED):
            one = _legal(generator, signature, one, extreme)
        drawn.append(within(signature, one.astype(value.dtype)))
    return drawn


def _legal(
    generator: np.random.Generator, signature: Signature, value: np.ndarray, extreme: bool
) -> np.ndarray:
    """Copy `value` with legal indices, non-negative where possible.

    Indices are uniform in their ranges, or the ends of these if `extreme`.
    """
    flat = value.reshape(-1).copy()
    for one in signature.ranges:
        part = one.of(flat)
        low = min(max(one.low, 0), one.high)
        ends = generator.choice([low, one.high], part.shape)
        part[:] = ends if extreme else generator.integers(low, one.high, part.shape, endpoint=True)
    return flat.reshape(value.shape)


def are_all_numbers(uses: Mapping[str, DrawnUse]) -> bool:
    """True if no input is a mask or an index."""
    return not any(use.kind in _DRAWN for use in uses.values())


def _large(generator: np.random.Generator, plain: np.ndarray) -> np.ndarray:
    """Copy `plain` with one number of sixteen large and one of four zero."""
    large = LARGE_HALF if plain.dtype == np.float16 else LARGE
    kinds = generator.integers(0, 16, plain.shape)
    value = plain.astype(np.float64)
    return np.where(kinds == 0, large * np.sign(value), np.where(kinds < 5, 0.0, value))


def _indices(
    generator: np.random.Generator, plain: np.ndarray, size: int | None, extreme: bool
) -> np.ndarray:
    if size is None:
        return plain
    if extreme:
        return np.where(plain > 0, size - 1, 0)
    return generator.integers(0, size, plain.shape)


def _positions(
    _generator: np.random.Generator, plain: np.ndarray, size: int | None, extreme: bool
) -> np.ndarray:
    count = plain.shape[-1] if plain.ndim else 1
    line = np.arange(count)
    if extreme:
        line = line[::-1] if size is None else size - 1 - line
    return np.broadcast_to(line % (size or max(count, 1)), plain.shape)


def _kept(
    generator: np.random.Generator, plain: np.ndarray, _size: int | None, extreme: bool
) -> np.ndarray:
    """Mask that keeps at least one element of each row; extreme masks keep none of the last."""
    kept = generator.integers(0, 2, plain.shape)
    if not plain.size or not plain.ndim:
        return kept | 1
    rows = kept.reshape(-1, plain.shape[-1])
    rows[np.arange(len(rows)), generator.integers(0, rows.shape[1], len(rows))] = 1
    if extreme:
        rows[-1] = 0
    return rows.reshape(plain.shape)


def _added(
    generator: np.random.Generator, plain: np.ndarray, size: int | None, extreme: bool
) -> np.ndarray:
    """Additive mask: 0 for kept elements, otherwise a number that exporters use.

    Extreme masks contain -inf in rows with kept elements.
    """
    kept = _kept(generator, plain, size, extreme)
    least = _least(plain.dtype)
    masked = generator.choice([least, -np.inf] if extreme else [least, -LARGE], plain.shape)
    if extreme and plain.ndim and plain.size:
        masked.reshape(-1, plain.shape[-1])[-1] = least
    return np.where(kept == 1, 0.0, masked)


def _least(dtype: np.dtype) -> float:
    """Lowest finite number of a type; for bfloat16, which numpy lacks, almost that of float32."""
    return float(np.finfo(dtype if dtype.kind == "f" else np.float32).min) * (
        1 if dtype.kind == "f" else 0.99
    )


_ORDERED = frozenset({"kept", "positions"})
"""Uses whose values need no further drawing within their ranges."""

_Draw = Callable[[np.random.Generator, np.ndarray, "int | None", bool], np.ndarray]
"""Function of generator, plain values, axis extent and extremeness that draws an input."""
_DRAWN: Mapping[str, _Draw] = {
    "added": _added,
    "indices": _indices,
    "kept": _kept,
    "positions": _positions,
}
"""Drawing functions by kind of use."""
