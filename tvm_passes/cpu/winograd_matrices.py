"""Transform matrices of Winograd's minimal filtering algorithms, from interpolation points.

F(m, r) computes m outputs of a filter of r taps with m + r - 1 products: y = Aᵀ [(G g) ⊙ (Bᵀ d)]
(A. Lavin and S. Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016; the
construction is Cook and Toom's).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

TAPS = 3
"""Taps of the filter, r."""
_POINTS = {2: (0, 1, -1), 4: (0, 1, -1, Fraction(1, 2), -2)}
"""Finite points by number of outputs.

Those for four are of B. Barabasz et al., *Error Analysis and Improving the Accuracy of Winograd
Convolution*, ACM TOMS 2020; their error is about half of that of (0, 1, -1, 2, -2).
"""

T = TypeVar("T")
"""Type of values in a linear combination."""


@dataclass(frozen=True, kw_only=True)
class WinogradMatrices:
    """Matrices of F(m, 3)."""

    output: np.ndarray
    """Aᵀ, (m, m + 2)."""
    filter: np.ndarray
    """G, (m + 2, 3)."""
    input: np.ndarray
    """Bᵀ, (m + 2, m + 2)."""

    @property
    def outputs(self) -> int:
        """Number of outputs, m."""
        return self.output.shape[0]

    @property
    def points(self) -> int:
        """Number of points, m + 2."""
        return self.input.shape[0]


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients, constant first, of the product of (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [
            a - root * b for a, b in zip(shifted, [*coefficients, Fraction(0)], strict=True)
        ]
    return coefficients


def winograd_matrices(outputs: int) -> WinogradMatrices:
    """Compute the matrices of F(outputs, 3), in float64."""
    points = [Fraction(point) for point in _POINTS[outputs]]
    size = len(points) + 1
    output = [
        [point**row for point in points] + [Fraction(int(row == outputs - 1))]
        for row in range(outputs)
    ]
    filters, inputs = [], []
    for index, point in enumerate(points):
        others = points[:index] + points[index + 1 :]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        # The same factor may be in either matrix; powers of two keep both exact and of similar
        # size.
        share = Fraction(1)
        while abs(scale / share) >= 2:
            share *= 2
        filters.append([point**tap * share / scale for tap in range(TAPS)])
        inputs.append([c / share for c in [*_polynomial(others), Fraction(0)]])
    filters.append([Fraction(0), Fraction(0), Fraction(1)])
    inputs.append(_polynomial(points))
    assert len(inputs) == size
    return WinogradMatrices(
        output=np.array(output, dtype="float64"),
        filter=np.array(filters, dtype="float64"),
        input=np.array(inputs, dtype="float64"),
    )


def apply_matrix(
    matrix: np.ndarray,
    values: Sequence[T],
    combine: Callable[[Sequence[tuple[float, T]]], T],
) -> list[T]:
    """Multiply `matrix` by a column of `values`; sums that several rows need are computed once.

    Two columns are replaced by their sum and difference if every row has equal or opposite
    coefficients in them, as for the points p and -p. Two rows a and b are computed from (a + b) / 2
    and (a - b) / 2 if these have fewer terms.

    Parameters
    ----------
    combine
        Forms a linear combination, given (coefficient, value) pairs.
    """
    work = matrix.copy()
    columns = list(values)
    _pair_columns(work, columns, combine)
    partner = _row_pairs(work)
    results: dict[int, T] = {}
    for row in range(len(work)):
        if row in results:
            continue
        if row in partner:
            other = partner[row]
            even = combine(_terms((work[row] + work[other]) / 2, columns))
            odd = combine(_terms((work[row] - work[other]) / 2, columns))
            results[row] = combine([(1.0, even), (1.0, odd)])
            results[other] = combine([(1.0, even), (-1.0, odd)])
        else:
            results[row] = combine(_terms(work[row], columns))
    return [results[row] for row in range(len(work))]


def _terms(row: np.ndarray, columns: Sequence[T]) -> list[tuple[float, T]]:
    """Return the non-zero coefficients of a row with their values."""
    return [(float(c), value) for c, value in zip(row, columns, strict=True) if c]


def _pair_columns(
    work: np.ndarray, columns: list[T], combine: Callable[[Sequence[tuple[float, T]]], T]
) -> None:
    """Replace pairs of columns by their sum and difference."""
    for j in range(work.shape[1]):
        for k in range(j + 1, work.shape[1]):
            a, b = work[:, j], work[:, k]
            if np.all(np.abs(a) == np.abs(b)) and np.any(a == b) and np.count_nonzero(a) > 2:
                total = combine([(1.0, columns[j]), (1.0, columns[k])])
                difference = combine([(1.0, columns[j]), (-1.0, columns[k])])
                columns[j], columns[k] = total, difference
                work[:, j], work[:, k] = (a + b) / 2, (a - b) / 2
                break


def _row_pairs(work: np.ndarray) -> dict[int, int]:
    """Return pairs of rows whose even and odd parts have fewer terms."""
    pairs: dict[int, int] = {}
    for i in range(len(work)):
        for k in range(i + 1, len(work)):
            even, odd = (work[i] + work[k]) / 2, (work[i] - work[k]) / 2
            shared = np.count_nonzero(even) + np.count_nonzero(odd) + 2
            apart = np.count_nonzero(work[i]) + np.count_nonzero(work[k])
            if i not in pairs and k not in pairs.values() and shared < apart:
                pairs[i] = k
    return pairs
