"""Random inputs and errors of results; imports numpy alone, to keep engine processes small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layoutsel.device.signature import Signature


def random_inputs(signatures: Sequence[Signature], seed: int = 0) -> list[np.ndarray]:
    """Seeded inputs: normal floats, integers and booleans of 0 or 1, indices within range."""
    generator = np.random.default_rng(seed)
    drawn = [
        generator.standard_normal(signature.shape).astype(signature.dtype)
        if "float" in signature.dtype
        else generator.integers(0, 2, signature.shape).astype(signature.dtype)
        for signature in signatures
    ]
    return [within(*pair) for pair in zip(signatures, drawn, strict=True)]


def within(signature: Signature, value: np.ndarray) -> np.ndarray:
    """Copy `value` with illegal indices replaced by the nearest legal ones."""
    if not signature.ranges:
        return value
    flat = value.reshape(-1).copy()
    for one in signature.ranges:
        part = one.of(flat)
        np.clip(part, one.low, one.high, out=part)
    return flat.reshape(value.shape)


def rel_l2_err(got: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2 error of `got`; infinite if a value is not finite where the expected one is."""
    got = np.asarray(got, dtype=np.float64).ravel()
    expected = np.asarray(expected, dtype=np.float64).ravel()
    if got.shape != expected.shape:
        return float("inf")
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    if same.all():
        return 0.0
    difference = np.where(same, 0.0, got - expected)
    norm = float(np.linalg.norm(np.where(np.isfinite(expected), expected, 0.0)))
    error = float(np.linalg.norm(difference)) / max(norm, 1e-30)
    return error if np.isfinite(error) else float("inf")
