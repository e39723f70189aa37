"""Features of the cells of NAS-Bench-201, from their structure alone.

Paths from the input to the output decide what a cell computes: a path with ``none`` carries
nothing, and a skip does not change it. Cells with equal functions have equal features.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from layoutsel.search.surrogate import FeatureGroup

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Operations of the table, by their numbers in codes."""
PAIRS = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Nodes of the operations of a code, in order."""
PATHS = tuple(
    tuple(PAIRS.index(pair) for pair in itertools.pairwise((0, *inner, 3)))
    for count in range(3)
    for inner in itertools.combinations((1, 2), count)
)
"""Pairs on each path from the input of a cell to its output."""


_NONE, _SKIP = 0, 1
"""Numbers of the operations that carry nothing, and that change nothing."""
_MACS = {2: 1.0, 3: 9.0}
"""Multiplications of the convolutions by number, relative to those of the smallest one."""


@dataclass(frozen=True, eq=False)
class CellFeatures:
    """Features of cells."""

    codes: np.ndarray
    """Operations by pair, (cells, 6)."""

    @cached_property
    def is_dead(self) -> np.ndarray:
        """True for cells whose output does not depend on their input, (cells,)."""
        return np.logical_not(self.live_paths.any(axis=1))

    @cached_property
    def live_paths(self) -> np.ndarray:
        """True for paths from input to output without ``none``, (cells, 4)."""
        return np.stack([(self.codes[:, path] != _NONE).all(axis=1) for path in PATHS], axis=1)

    @cached_property
    def groups(self) -> tuple[FeatureGroup, ...]:
        """Features of all cells, by their structure alone; equal for equal functions."""
        operations = self._used_operations()
        paths = self._path_counts(lambda found: found)
        contents = self._path_counts(sorted)
        counts = np.stack([(operations == number).sum(axis=1) for number in range(1, 5)], axis=1)
        macs = sum(factor * (operations == number).sum(axis=1) for number, factor in _MACS.items())
        depths = standard(self._depths())
        return (
            FeatureGroup(name="operations", values=operations, is_category=True),
            FeatureGroup(name="paths", values=np.sqrt(paths)),
            FeatureGroup(name="contents of paths", values=np.sqrt(contents)),
            FeatureGroup(name="counts", values=counts / 2),
            FeatureGroup(name="convolutions of paths", values=depths[:, :4]),
            FeatureGroup(name="poolings of paths", values=depths[:, 4:]),
            FeatureGroup(name="multiplications", values=standard(np.log1p(macs)[:, None])),
        )

    def _used_operations(self) -> np.ndarray:
        """Codes without operations that are on no live path."""
        used = np.zeros_like(self.codes)
        for number, path in enumerate(PATHS):
            for pair in path:
                live = self.live_paths[:, number]
                used[live, pair] = self.codes[live, pair]
        return used

    def _operations_of_paths(self) -> Iterator[list[tuple[int, ...]]]:
        """Yield the operations of the live paths of each cell, without skips."""
        for code, live in zip(self.codes, self.live_paths, strict=True):
            yield [
                tuple(int(one) for one in code[list(path)] if one != _SKIP)
                for path, is_live in zip(PATHS, live, strict=True)
                if is_live
            ]

    def _path_counts(self, key: Callable[[tuple[int, ...]], Iterable[int]]) -> np.ndarray:
        """Number of paths of each kind, (cells, kinds)."""
        kinds: dict[tuple[int, ...], int] = {}
        rows = [
            [kinds.setdefault(tuple(key(path)), len(kinds)) for path in paths]
            for paths in self._operations_of_paths()
        ]
        found = np.zeros((len(rows), len(kinds)))
        for row, columns in enumerate(rows):
            np.add.at(found[row], columns, 1)
        return found

    def _depths(self) -> np.ndarray:
        """Numbers of paths, and of convolutions and poolings on them, (cells, 8)."""
        found = np.zeros((len(self.codes), 8))
        for row, paths in enumerate(self._operations_of_paths()):
            if paths:
                convolutions = [sum(one in _MACS for one in path) for path in paths]
                poolings = [
                    len(path) - count for path, count in zip(paths, convolutions, strict=True)
                ]
                found[row] = [
                    len(paths),
                    *_range(convolutions),
                    *_range(poolings),
                    float(() in paths),
                ]
        return found


def _range(counts: Sequence[int]) -> tuple[float, float, float]:
    return float(max(counts)), float(min(counts)), sum(counts) / len(counts)


def standard(values: np.ndarray) -> np.ndarray:
    """Scale columns to mean 0 and deviation 1."""
    scaled: np.ndarray = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)
    return scaled
