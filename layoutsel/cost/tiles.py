"""Time of kernels on tiles, as a sum of terms whose rates are learned from measurements.

Trees approximate a sum of several costs badly. For kernels on tiles the terms are known: products,
loads of either operand, stores, copies and the traffic of each side. Their rates are the
non-negative ones of least relative error; the boosters then learn what the sum leaves over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from layoutsel.cost.features import NAMES

FEWEST = 130
"""Minimum number of samples that rates are learned from."""
_ROUNDS = 6
"""Rounds of reweighting, after which the sum of absolute errors hardly changes."""
_SMALLEST_ERROR = 0.03
"""Relative error below which a sample gets no further weight."""
_LANES = 16
"""Output channels, or pixels, of a tile."""
_COLUMN = {name: column for column, name in enumerate(NAMES)}
_PRODUCTS = _COLUMN["hint_products"]


class _Kernels:
    """Features of candidates, as the extents that their logarithms stand for."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows.astype(np.float64)
        split = self.plain("precision_split-bf16")
        self.halves = 1 + split
        self.split = split
        self.stored = 1 - 0.5 * self.plain("precision_bf16")
        # Microseconds at the machine's peak rates per operation, or per byte.
        self.per_flop = 1e-3 / self.extent("gflops")
        self.per_cached_byte = 1e-3 / self.extent("cache_gbps")
        self.balanced = 1 / self.plain("balance")
        self.products = self.extent("hint_products") * self.balanced * self.per_flop
        # Values in halves take three products for the same loads.
        self.steps = self.products / (1 + 2 * split)
        pixels = self.extent("batch") * self.extent("out_pixels")
        self.results = pixels * self.extent("out_channels")

    def plain(self, name: str) -> np.ndarray:
        return self._rows[:, _COLUMN[name]]

    def extent(self, name: str) -> np.ndarray:
        return np.exp2(self.plain(name))

    def read(self) -> np.ndarray:
        """Compute the time of reading the activations once from cache."""
        return self.stored * self.extent("input_bytes") * self.per_cached_byte

    def written(self) -> np.ndarray:
        """Compute the time of writing the results to cache."""
        return self.stored * self.extent("output_bytes") * self.per_cached_byte

    def passes(self) -> np.ndarray:
        """Compute how often the blocks of weights read the pixels."""
        columns = np.ceil(self.extent("out_channels") / _LANES)
        again = columns / self.extent("hint_tile_channels")
        return np.where(self.plain("hint_pixels_first") > 0, 1.0, again)


_TERMS: Mapping[str, Callable[[_Kernels], np.ndarray]] = MappingProxyType(
    {
        "tasks": lambda k: k.extent("hint_tasks") / k.plain("threads") * k.balanced,
        "products": lambda k: k.products,
        "pixel_loads": lambda k: k.halves * k.steps / k.extent("hint_tile_channels"),
        "weight_loads": lambda k: k.halves * k.steps / k.extent("hint_tile_pixels"),
        "weights": lambda k: k.stored * k.extent("weight_bytes") * 1e-3 / k.extent("memory_gbps"),
        "read": _Kernels.read,
        "read_again": lambda k: k.passes() * k.read(),
        "written": _Kernels.written,
        "split": lambda k: k.split * k.written(),
        "copied": lambda k: k.extent("hint_copied") * k.balanced * k.per_cached_byte,
        "transcendental": lambda k: k.plain("transcendental") * k.results * k.per_flop,
        "arithmetic": lambda k: k.plain("arithmetic") * k.results * k.per_flop,
    }
)
"""Terms of the time, by name."""


def terms(rows: np.ndarray) -> np.ndarray:
    """Compute the terms of candidates, (rows, terms), each in units of a peak of the machine."""
    kernels = _Kernels(rows)
    return np.stack([term(kernels) for term in _TERMS.values()], axis=1)


def fit_rates(rows: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[float, ...]:
    """Learn the rate of each term; empty with fewer than :data:`FEWEST` kernels on tiles.

    Parameters
    ----------
    rows
        Features of candidates.
    targets
        Natural logarithms of the measured microseconds.
    weights
        Weights of the samples.
    """
    from scipy.optimize import nnls

    on_tiles = _on_tiles(rows)
    if on_tiles.sum() < FEWEST:
        return ()
    relative = terms(rows[on_tiles]) / np.exp(targets[on_tiles])[:, None]
    scale = np.maximum(relative.mean(axis=0), 1e-12)
    relative /= scale
    known = current = weights[on_tiles]
    rates = np.zeros(len(scale))
    for _ in range(_ROUNDS):
        root = np.sqrt(current)
        rates, _ = nnls(relative * root[:, None], root)
        errors = np.abs(np.log(np.maximum(relative @ rates, 1e-3)))
        current = known / np.maximum(errors, _SMALLEST_ERROR)
    # Six digits are the same on every CPU.
    return tuple(float(f"{rate:.6g}") for rate in rates / scale)


def margins(rows: np.ndarray, rooflines: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """Compute the natural logarithms of microseconds that the boosters correct.

    They are the sums of terms for kernels on tiles, and the rooflines for all other candidates.
    """
    on_tiles = _on_tiles(rows)
    if not rates or not on_tiles.any():
        return rooflines
    sums = terms(rows[on_tiles]) @ np.array(rates)
    found = rooflines.copy()
    found[on_tiles] = np.log(np.maximum(sums, 1e-3))
    return found


def _on_tiles(rows: np.ndarray) -> np.ndarray:
    """Mask (rows,) of the kernels that state how many products of tiles they compute."""
    if rows.shape[1] < len(NAMES):  # boundaries
        return np.zeros(len(rows), dtype=bool)
    mask: np.ndarray = rows[:, _PRODUCTS] >= 0
    return mask
