"""Correction of the learned model for one machine, from the errors of a few predictions there.

The logarithm of measured over predicted time is a Gaussian process: candidates that resemble each
other have similar errors (Rasmussen, Williams, "Gaussian Processes for Machine Learning", 2006,
section 2.2). Its covariance is a sum with one term for each kind of resemblance: same machine,
unit, kernel in one precision, similar size. Few measurements thus correct a whole unit, more of
them single kernels, and none of them corrects candidates that resemble nothing measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from layoutsel.cost import features
from tvm_passes.errors import LayoutselError

_COLUMN = {name: column for column, name in enumerate(features.NAMES)}
_KINDS: Mapping[str, list[int]] = MappingProxyType(
    {
        **{
            group: [_COLUMN[f"{group}_{word}"] for word in words]
            for group, words in features.VOCABULARY.items()
        },
        "kernel": [_COLUMN[name] for name in features.CODE_HINTS],
    }
)
"""Columns of the features by kind; the largest of them tells which kind a candidate is of."""
_SIZES = [
    _COLUMN[name]
    for name in (
        *("compute_us", "weights_in_l2", "activations_in_l2", "intensity"),
        *("out_channels", "out_pixels"),
    )
]
"""Columns of the features that tell the size of a candidate, as base-2 logarithms."""
_TIME_SCALE = 2.0
"""Weight of the predicted time among the sizes: fixed costs of a run show in short times alone."""

_MACHINE = 0.18
"""Standard deviation of the error that all candidates share, natural logarithm of time.

This and the deviations of :data:`_TERMS` maximise the likelihood of the errors on four machines,
each left out of the training (Rasmussen, Williams, section 5.4.1).
"""


class _Term(NamedTuple):
    """Part of an error that candidates of one unit share if they are of the same kinds."""

    deviation: float
    """Standard deviation, natural logarithm of time."""
    same: tuple[str, ...] = ()
    """Groups of :data:`_KINDS`; in each, both candidates are of one kind."""
    length: float | None = None
    """Distance of the sizes over which the part varies smoothly; None if it does not vary."""


_KERNEL = "anchor", "kernel"
_DECISION = *_KERNEL, "layout", "precision", "algorithm"
_TERMS = (
    _Term(0.04),
    _Term(0.04, ("anchor",)),
    _Term(0.18, ("layout",)),
    _Term(0.05, ("precision",)),
    _Term(0.03, ("algorithm",)),
    _Term(0.07, ("kernel",)),
    _Term(0.02, _KERNEL),
    _Term(0.14, (*_KERNEL, "precision")),
    _Term(0.10, (*_KERNEL, "layout")),
    _Term(0.05, _DECISION),
    _Term(0.30, length=5.1),
    _Term(0.14, _KERNEL, length=3.4),
    _Term(0.18, _DECISION, length=3.4),
)
"""Parts of an error within a unit.

A kernel's error depends on its layout and precision: most of what one kernel's candidates share,
they share in one precision or layout alone.
"""
NOISE = 0.15
"""Deviation that no other candidate shares."""
_PRIOR_VARIANCE = _MACHINE**2 + sum(term.deviation**2 for term in _TERMS)
_ROUNDS = 8
"""Rounds of reweighting, which limit the influence of outliers (Huber, 1964)."""
_OUTLIER = 2.0
"""Deviations of noise from which an observation counts as an outlier."""
_BLOCK = 1024
"""Maximum number of candidates whose covariances are in memory at once."""


@dataclass(frozen=True)
class Traits:
    """Properties by which candidates resemble each other, one row each."""

    units: tuple[str, ...]
    """Unit of each candidate."""
    kinds: tuple[tuple[int, ...], ...]
    """Number of the candidate's kind in each group of :data:`_KINDS`."""
    sizes: tuple[tuple[float, ...], ...]
    """Base-2 logarithms of sizes, and of the predicted time."""

    @classmethod
    def of(cls, units: Sequence[str], rows: np.ndarray, predicted: np.ndarray) -> Traits:
        """Read the traits of candidates.

        Parameters
        ----------
        units
            Unit of each candidate.
        rows
            Features of the candidates, (candidates, features).
        predicted
            Natural logarithms of the predicted microseconds, (candidates,).
        """
        kinds = np.stack([_largest(rows[:, columns]) for columns in _KINDS.values()], axis=1)
        time = _TIME_SCALE * np.asarray(predicted)[:, None] / np.log(2)
        sizes = np.hstack([rows[:, _SIZES].astype(np.float64), time])
        return cls(tuple(units), _tuples(kinds), _tuples(np.round(sizes, 4)))

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Units, kinds and sizes as arrays."""
        count = len(self.units)
        kinds = np.array(self.kinds).reshape(count, len(_KINDS))
        return np.array(self.units), kinds, np.array(self.sizes).reshape(count, len(_SIZES) + 1)

    def take(self, rows: Sequence[int]) -> Traits:
        """Select candidates by index."""
        units, kinds, sizes = (tuple(part[row] for row in rows) for part in self.parts)
        return Traits(units, kinds, sizes)

    @property
    def parts(self) -> tuple[tuple[Any, ...], ...]:
        """Units, kinds and sizes."""
        return self.units, self.kinds, self.sizes

    def __getitem__(self, rows: slice) -> Traits:
        return Traits(self.units[rows], self.kinds[rows], self.sizes[rows])

    def __len__(self) -> int:
        return len(self.units)


NO_TRAITS = Traits((), (), ())
_Rows = TypeVar("_Rows", Traits, np.ndarray)


def _largest(columns: np.ndarray) -> np.ndarray:
    """Return the number of the largest column from 1 in each row; 0 if none is above zero."""
    return np.where(columns.max(axis=1) > 0, columns.argmax(axis=1) + 1, 0)


def _tuples(table: np.ndarray) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, table.tolist()))


def _blocks(rows: _Rows) -> Iterator[_Rows]:
    """Divide candidates into blocks, which limits the memory of covariances."""
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def covariance(some: Traits, others: Traits) -> np.ndarray:
    """Compute the covariance of the errors of candidates, (some, others), without noise."""
    units, kinds, sizes = some.arrays
    other_units, other_kinds, other_sizes = others.arrays
    same = {
        group: kinds[:, None, column] == other_kinds[None, :, column]
        for column, group in enumerate(_KINDS)
    }
    distance = np.zeros((len(units), len(other_units)))
    for one, other in zip(sizes.T, other_sizes.T, strict=True):
        distance += np.subtract.outer(one, other) ** 2
    within = np.zeros_like(distance)
    for term in _TERMS:
        part = np.full_like(distance, term.deviation**2)
        if term.length is not None:
            part *= np.exp(-distance / (2 * term.length**2))
        for group in term.same:
            part *= same[group]
        within += part
    result: np.ndarray = _MACHINE**2 + (units[:, None] == other_units[None, :]) * within
    return result


@dataclass(frozen=True)
class Adaptation:
    """Errors of predictions on a machine, and the correction that follows from them."""

    traits: Traits = NO_TRAITS
    """Traits of the measured candidates."""
    errors: tuple[float, ...] = ()
    """Natural logarithm of the ratio of measured to predicted time of each."""
    noise: float = NOISE
    """Deviation of an error that no other candidate shares; larger on a busy machine."""

    def __post_init__(self) -> None:
        count = len(self.errors)
        lengths = {len(kinds) for kinds in self.traits.kinds}, {len(s) for s in self.traits.sizes}
        fits = lengths == ({len(_KINDS)}, {len(_SIZES) + 1}) if count else True
        if not fits or {len(part) for part in self.traits.parts} != {count} or self.noise <= 0:
            raise LayoutselError("not an adaptation: its parts differ in length")

    @property
    def units(self) -> frozenset[str]:
        """Units of the measured candidates."""
        return frozenset(self.traits.units)

    @cached_property
    def _inverse(self) -> np.ndarray:
        """Inverse of the covariance of the observed errors; outliers have more noise."""
        errors, shared = np.array(self.errors), covariance(self.traits, self.traits)
        noise = np.full(len(errors), self.noise**2)
        for _ in range(_ROUNDS):
            explained = shared @ np.linalg.solve(shared + np.diag(noise), errors)
            ratio = np.abs(errors - explained) / (_OUTLIER * self.noise)
            noise = self.noise**2 * np.maximum(1.0, ratio)
        inverse: np.ndarray = np.linalg.inv(shared + np.diag(noise))
        return inverse

    def correct(self, asked: Traits) -> tuple[np.ndarray, np.ndarray]:
        """Compute the expected error of candidates, and its standard deviation without noise.

        Returns
        -------
        tuple
            Natural logarithms of time, (candidates,) each.
        """
        if not self.errors:
            return np.zeros(len(asked)), np.full(len(asked), _PRIOR_VARIANCE**0.5)
        weights = self._inverse @ np.array(self.errors)
        expected, explained = [], []
        for part in _blocks(asked):
            shared = covariance(part, self.traits)
            expected.append(shared @ weights)
            explained.append(np.einsum("ij,ij->i", shared @ self._inverse, shared))
        left = _PRIOR_VARIANCE - np.concatenate(explained)
        return np.concatenate(expected), np.sqrt(np.maximum(left, 0.0))

    def shared_deviation(self, asked: Traits, us: np.ndarray) -> float:
        """Compute the standard deviation of a total time, as far as errors go together.

        Parameters
        ----------
        asked
            Traits of candidates.
        us
            Predicted time of each, microseconds, (candidates,).

        Returns
        -------
        float
            Standard deviation of the sum of the times, microseconds.
        """
        variance, seen = 0.0, np.zeros(len(self.errors))
        for part, times in zip(_blocks(asked), _blocks(us), strict=True):
            variance += float(times @ covariance(part, asked) @ us)
            seen += times @ covariance(part, self.traits)
        if self.errors:
            variance -= float(seen @ self._inverse @ seen)
        return max(variance, 0.0) ** 0.5

    @property
    def held_out(self) -> np.ndarray:
        """Remainder of each error after the correction that follows from all others.

        Rasmussen, Williams, equation 5.12.
        """
        if not self.errors:
            return np.zeros(0)
        left: np.ndarray = self._inverse @ np.array(self.errors) / np.diag(self._inverse)
        return left
