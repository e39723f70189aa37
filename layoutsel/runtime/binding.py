"""Checks of a caller's inputs against a model's signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from layoutsel.device.signature import Signature
from layoutsel.errors import InputError
from layoutsel.runtime.arrays import name_of


def bind(
    signatures: Sequence[Signature],
    arguments: Sequence[np.ndarray],
    named: Mapping[str, np.ndarray],
) -> list[np.ndarray]:
    """Order and check inputs, and make them contiguous.

    Parameters
    ----------
    signatures
        Inputs of the model, in order.
    arguments
        Inputs by position.
    named
        Inputs by name.

    Raises
    ------
    InputError
        If an input is missing, unknown, of another shape or element type, or holds an index out of
        range.
    """
    names = [signature.name for signature in signatures]
    if len(arguments) > len(names):
        raise InputError(f"got {len(arguments)} inputs; expected {len(names)}: {', '.join(names)}")
    given = dict(zip(names, arguments, strict=False))
    for name, value in named.items():
        if name not in names or name in given:
            problem = "given twice" if name in given else "unknown"
            raise InputError(f"input {name!r} is {problem}; the model takes {', '.join(names)}")
        given[name] = value
    bound = []
    for signature in signatures:
        if signature.name not in given:
            raise InputError(
                f"input {signature.name!r} is missing: expected {signature.dtype} of shape "
                f"{signature.shape}"
            )
        value = np.asarray(given[signature.name])
        if value.shape != signature.shape or name_of(value.dtype) != signature.dtype:
            raise InputError(
                f"input {signature.name!r}: got {value.dtype} of shape {value.shape}; "
                f"expected {signature.dtype} of shape {signature.shape}"
            )
        bound.append(np.ascontiguousarray(value).reshape(value.shape))  # NumPy makes scalars 1-d
        signature.check_values(bound[-1].reshape(-1), _ends)
    return bound


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Minimum and maximum."""
    return values.min(), values.max()
