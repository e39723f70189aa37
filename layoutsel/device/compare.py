"""Error of results against a reference, without numpy."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable, Iterable, Mapping


def rel_l2_err(got: bytes, got_dtype: str, expected: bytes, expected_dtype: str) -> float:
    """Relative L2 error of `got`; infinite if a value is not finite where the expected one is.

    Equals :func:`layoutsel.runtime.samples.rel_l2_err`.

    Parameters
    ----------
    got, expected
        Values, row by row.
    got_dtype, expected_dtype
        Element types, as numpy spells them.
    """
    values, wanted = _decoded(got, got_dtype), _decoded(expected, expected_dtype)
    if len(values) != len(wanted):
        return math.inf
    difference = math.fsum(
        _square(a - b) for a, b in zip(values, wanted, strict=True) if _differ(a, b)
    )
    norm = math.fsum(b * b for b in wanted if math.isfinite(b))
    if difference == 0:
        return 0.0
    error = math.sqrt(difference) / max(math.sqrt(norm), 1e-30)
    return error if math.isfinite(error) else math.inf


def _differ(one: float, other: float) -> bool:
    # Two NaN values count as equal.
    return one != other and not (math.isnan(one) and math.isnan(other))


def _square(value: float) -> float:
    """Square of a value; infinite for NaN, so that the sum becomes infinite."""
    return value * value if math.isfinite(value) else math.inf


def _decoded(data: bytes, dtype: str) -> list[float]:
    return [float(value) for value in _DECODERS[dtype](data)]


def _as(code: str) -> Callable[[bytes], Iterable[float]]:
    return lambda data: array(code, data)


def _bfloat16(data: bytes) -> Iterable[float]:
    # A bfloat16 is the upper half of a float32.
    wide = b"".join(b"\0\0" + data[start : start + 2] for start in range(0, len(data), 2))
    return array("f", wide)


_DECODERS: Mapping[str, Callable[[bytes], Iterable[float]]] = {
    **{"float32": _as("f"), "float64": _as("d"), "bfloat16": _bfloat16},
    **{f"int{8 * array(code).itemsize}": _as(code) for code in "bhiq"},
    **{f"uint{8 * array(code).itemsize}": _as(code) for code in "BHIQ"},
    "bool": _as("B"),
    "float16": lambda data: struct.unpack(f"<{len(data) // 2}e", data),
}
"""Decoders by element type; every platform of TVM's runtime is little-endian."""
