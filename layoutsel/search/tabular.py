"""Tables of trained networks: all cells of NAS-Bench-201 with accuracies and times.

Dong and Yang, "NAS-Bench-201" (arXiv 2001.00326): cells of four nodes, with one of five operations
for each of the six pairs. The times on devices are those of HELP (Lee et al., arXiv 2106.08630). A
table is an archive of arrays: ``architecture``, accuracies in percent by data set, and
``latency_*`` in milliseconds by device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from layoutsel.documents.arrays import read_arrays
from layoutsel.search.cell_features import OPERATIONS, PAIRS, CellFeatures, standard
from layoutsel.search.dominance import hypervolume, non_dominated
from layoutsel.search.surrogate import FeatureGroup
from tvm_passes.errors import LayoutselError

REFERENCE_QUANTILE, REFERENCE_ACCURACY = 0.99, 0.10
"""Reference of hypervolumes: quantile of all times, and accuracy of a guess among ten classes."""
LIMITS = 10
"""Number of limits of time if none are given."""
_LATENCY = "latency_"
"""Beginning of the names of arrays of times."""
_LIMIT_BYTES = 1 << 30
"""Largest size of a table, bytes."""


@dataclass(frozen=True, eq=False)
class NetworkTable:
    """Networks with their accuracies and times."""

    codes: np.ndarray
    """Operations by pair, (networks, 6)."""
    accuracies: Mapping[str, np.ndarray]
    """Share of right answers by data set, (networks,)."""
    latencies_us: Mapping[str, np.ndarray]
    """Time by device, (networks,), microseconds."""

    @classmethod
    def load(cls, file: Path | str) -> NetworkTable:
        """Read a table.

        Raises
        ------
        LayoutselError
            If the file cannot be read or is no such table.
        """
        arrays = dict(read_arrays(Path(file), _LIMIT_BYTES))
        names = arrays.pop("architecture", None)
        times = [name for name in arrays if name.startswith(_LATENCY)]
        if names is None or not times or len(arrays) == len(times):
            raise LayoutselError(
                f"{file}: got no table of networks; expected the arrays architecture, latency_* "
                "and accuracies"
            )
        codes = np.array([code_of(str(name)) for name in np.ravel(names)]).reshape(-1, len(PAIRS))
        _check_networks(codes, file)
        values = {
            name: _checked(array, len(codes), f"{file}: {name}", name in times)
            for name, array in arrays.items()
        }
        return cls(
            codes=codes,
            accuracies={name: held / 100 for name, held in values.items() if name not in times},
            latencies_us={name.removeprefix(_LATENCY): 1e3 * values[name] for name in times},
        )

    def task(self, device: str, data: str, limits_us: Sequence[float] = ()) -> TableTask:
        """Search for one device and data set.

        Parameters
        ----------
        device, data
            Names in the table.
        limits_us
            Limits of time whose most accurate networks matter; none for ten in equal steps.

        Raises
        ------
        LayoutselError
            If the table has no such device or data set, or no network that counts, or a limit that
            no network keeps.
        """
        for got, known, what in (
            (device, self.latencies_us, "device"),
            (data, self.accuracies, "data set"),
        ):
            if got not in known:
                raise LayoutselError(f"{what} {got!r}: the table has {', '.join(sorted(known))}")
        found = TableTask(self, device, data, tuple(limits_us))
        if not len(found.candidates) or not found.share(found.candidates.tolist()) > 0:
            raise LayoutselError(
                f"device {device!r}, data set {data!r}: got no network that is faster than "
                f"{100 * REFERENCE_QUANTILE:.0f} % and more than {100 * REFERENCE_ACCURACY:.0f} % "
                "right; expected a table of trained networks"
            )
        fastest_us = float(found.us[found.candidates].min())
        if min(found.limits_us) < fastest_us:
            raise LayoutselError(
                f"device {device!r}: got a limit of {min(found.limits_us) / 1e3:.4g} ms; expected "
                f"at least the {fastest_us / 1e3:.4g} ms of its fastest network"
            )
        return found

    @cached_property
    def cells(self) -> CellFeatures:
        """Features of the networks."""
        return CellFeatures(self.codes)


def _check_networks(codes: np.ndarray, file: Path | str) -> None:
    """Reject a table without some networks: searches change one operation of a network."""
    expected = np.prod([len(np.unique(column)) for column in codes.T])
    different = len(np.unique(codes, axis=0))
    if not 0 < len(codes) == different == expected:
        raise LayoutselError(
            f"{file}: architecture: got {len(codes)} networks, {different} different ones; "
            "expected each combination of operations once"
        )


def _checked(values: np.ndarray, count: int, what: str, is_time: bool) -> np.ndarray:
    """Numbers of an array of the table; rejects those that are no times or percentages."""
    expected = f"{count} " + ("times above 0, milliseconds" if is_time else "percentages")
    if values.shape != (count,) or values.dtype.kind not in "fiu":
        raise LayoutselError(
            f"{what}: got an array of {values.dtype} {values.shape}; expected {expected}"
        )
    most = np.inf if is_time else 100
    wrong = ~(np.isfinite(values) & (values >= 0) & (values <= most))
    if is_time:
        wrong |= values == 0
    if wrong.any():
        raise LayoutselError(f"{what}: got {values[wrong][0]:g}; expected {expected}")
    return values.astype(float)


def code_of(name: str) -> tuple[int, ...]:
    """Operations of an architecture such as ``|none~0|+|skip_connect~0|…|``.

    Raises
    ------
    LayoutselError
        If it is none.
    """
    found = [
        one.partition("~")[0] for node in name.split("+") for one in node.strip("|").split("|")
    ]
    if len(found) != len(PAIRS) or not set(found) <= set(OPERATIONS):
        raise LayoutselError(
            f"architecture {name!r}: expected {len(PAIRS)} operations of {', '.join(OPERATIONS)}"
        )
    return tuple(map(OPERATIONS.index, found))


@dataclass(frozen=True, eq=False)
class TableTask:
    """Search for networks that are accurate on one data set and fast on one device."""

    table: NetworkTable
    """Networks."""
    device: str
    """Device."""
    data: str
    """Data set."""
    given_us: tuple[float, ...] = ()
    """Limits of time that were given, microseconds."""

    @property
    def us(self) -> np.ndarray:
        """Time of each network, (networks,), microseconds; known without a query."""
        return self.table.latencies_us[self.device]

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy of each network, (networks,); each look at one is a query."""
        return self.table.accuracies[self.data]

    @cached_property
    def reference(self) -> tuple[float, float]:
        """Largest time and smallest accuracy that count."""
        return float(np.quantile(self.us, REFERENCE_QUANTILE)), REFERENCE_ACCURACY

    @cached_property
    def candidates(self) -> np.ndarray:
        """Networks that can count: they are not dead, and within the largest time."""
        return np.flatnonzero(~self.table.cells.is_dead & (self.us < self.reference[0]))

    @cached_property
    def features(self) -> tuple[FeatureGroup, ...]:
        """Features of the networks, and their times."""
        return (
            *self.table.cells.groups,
            FeatureGroup(name="time", values=standard(np.log(self.us)[:, None])),
        )

    def share(self, known: Sequence[int]) -> float:
        """Hypervolume of known networks, relative to that of all."""
        rows = np.asarray(known, dtype=int)
        found = hypervolume(self.us[rows], self.accuracy[rows], self.reference)
        return found / self._whole if found else 0.0

    @cached_property
    def _whole(self) -> float:
        return hypervolume(self.us, self.accuracy, self.reference)

    @cached_property
    def front(self) -> np.ndarray:
        """Non-dominated networks in ascending order of time."""
        rows = self.candidates
        return rows[non_dominated(self.us[rows], self.accuracy[rows], np.zeros((len(rows), 0)))]

    @cached_property
    def limits_us(self) -> tuple[float, ...]:
        """Limits of time, microseconds.

        If none were given, ten in equal steps from the fastest candidate to the reference; the
        fastest candidate itself is no limit.
        """
        if self.given_us:
            return self.given_us
        fastest = self.us[self.candidates].min()
        return tuple(np.linspace(fastest, self.reference[0], LIMITS + 1)[1:].tolist())

    def regrets(self, known: Sequence[int], limits_us: Sequence[float]) -> np.ndarray:
        """Accuracy that the best known network lacks within each limit, (limits,)."""
        rows = np.asarray(known, dtype=int)

        def best(some: np.ndarray, most_us: float) -> float:
            return float(self.accuracy[some][self.us[some] <= most_us].max(initial=0.0))

        everything = self.candidates
        return np.array([best(everything, limit) - best(rows, limit) for limit in limits_us])
