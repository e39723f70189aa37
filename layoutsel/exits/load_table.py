"""Table of arrangements by load: few distinct ones, and which to use in every cell of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np

from layoutsel import documents
from layoutsel.device.core_load import CoreLoad
from layoutsel.documents.saved import below, reject
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.arrangement_checks import arrangement_faults
from layoutsel.exits.load_grid import LoadGrid, borders
from tvm_passes.errors import LayoutselError

SCHEMA_VERSION = 1
"""Version of tables."""
RENEW = "Compile the network again"
"""Advice on a table whose version is no longer supported."""


class LoadTableError(LayoutselError):
    """A table with inconsistent values."""


@dataclass(frozen=True, kw_only=True)
class LoadBorder:
    """Range of loads of one kind with one arrangement."""

    streaming: float
    """Share of the other work that streams through the main memory."""
    from_busy: float
    """Number of busy cores from which on the arrangement is chosen."""
    to_busy: float
    """Number of busy cores up to which it is chosen."""
    chosen: int
    """Number of the arrangement."""


@dataclass(frozen=True, kw_only=True)
class LoadTable:
    """Arrangements of one compiled network, and the one to use in each cell of a grid of loads.

    Raises
    ------
    LoadTableError
        If the values do not fit each other.
    """

    schema_version: int
    """:data:`SCHEMA_VERSION`."""
    grid: LoadGrid
    """Cells."""
    objective: str
    """Entry of :data:`layoutsel.exits.latencies.OBJECTIVES` that the values are of."""
    arrangements: tuple[Arrangement, ...]
    """Distinct arrangements; all of them share code and weights."""
    value_us: tuple[tuple[float, ...], ...]
    """Predicted objective by cell and arrangement, microseconds."""
    mean_us: tuple[tuple[float, ...], ...]
    """Predicted mean latency by cell and arrangement, microseconds."""
    best_us: tuple[float, ...]
    """Predicted objective of the best of all arrangements by cell, microseconds."""
    bound_us: tuple[float, ...]
    """Lower bound on the objective of all arrangements by cell, microseconds."""
    factors: tuple[float, ...]
    """Measured over predicted time of each arrangement; 1 if it was not measured."""
    chosen: tuple[int, ...] = field(init=False)
    """Arrangement with the least corrected value by cell."""
    off: tuple[int, ...] = field(init=False)
    """Trunk alone with the least corrected value by cell, for use when exits must not answer."""

    def __post_init__(self) -> None:
        for fault in _faults(self):
            raise LoadTableError(f"table of loads: {fault}")
        values_us = self.values_us
        alone = [not any(one.branches) for one in self.arrangements]
        chosen = values_us.argmin(axis=1)
        off = np.where(alone, values_us, np.inf).argmin(axis=1)
        object.__setattr__(self, "chosen", tuple(map(int, chosen)))
        object.__setattr__(self, "off", tuple(map(int, off)))

    @property
    def values_us(self) -> np.ndarray:
        """Corrected objective by cell and arrangement, microseconds."""
        return np.array(self.value_us) * np.array(self.factors)

    @property
    def regret(self) -> np.ndarray:
        """Predicted loss against each cell's own best arrangement, as a share of it, (cells,)."""
        best_us = np.array(self.best_us)
        return np.maximum(np.array(self.value_us).min(axis=1) / best_us - 1, 0.0)

    def borders(self) -> tuple[LoadBorder, ...]:
        """Ranges of loads with one arrangement, by kind of work."""
        levels = self.grid.busy
        edges = [0.0, *borders(levels), float(self.grid.cores)]
        found = []
        for kind, streaming in enumerate(self.grid.streaming):
            row = self.chosen[kind * len(levels) : (kind + 1) * len(levels)]
            for chosen, run in groupby(range(len(levels)), key=row.__getitem__):
                held = list(run)
                found.append(
                    LoadBorder(
                        streaming=streaming,
                        from_busy=edges[held[0]],
                        to_busy=edges[held[-1] + 1],
                        chosen=chosen,
                    )
                )
        return tuple(found)

    def corrected(self, load: CoreLoad, measured_us: Sequence[float]) -> LoadTable:
        """Copy with all predictions corrected by a measurement under one load.

        Parameters
        ----------
        load
            Load during the measurement.
        measured_us
            Measured objective of each arrangement, microseconds.
        """
        predicted_us = self.value_us[self.grid.cell(load)]
        factors = (us / value for us, value in zip(measured_us, predicted_us, strict=True))
        return replace(self, factors=tuple(factors))

    @classmethod
    def read(cls, document: Any, costs: ExitCosts, *, file: str = "document") -> LoadTable:
        """Read a table from JSON.

        Parameters
        ----------
        document
            Parsed JSON.
        costs
            Times of the network, for the names of workers.
        file
            Name of the file, for error messages.

        Raises
        ------
        DocumentError, LoadTableError
            If the document is not a table, or an inconsistent one.
        """
        documents.check_version(
            document, "schema_version", (SCHEMA_VERSION,), renew=RENEW, file=file
        )
        try:
            found = documents.from_json(cls, document, file=file)
        except LoadTableError as error:
            raise LoadTableError(f"{file}: {error}") from error
        for number, one in enumerate(found.arrangements):
            reject(below(f"$.arrangements[{number}]", arrangement_faults(one, costs)), file)
        return found


def _faults(table: LoadTable) -> Iterator[str]:
    """Faults of the values, the first of which is an error."""
    cells, count = table.grid.cells, len(table.arrangements)
    if all(any(one.branches) for one in table.arrangements):
        yield f"got {count} arrangements; expected one of the trunk alone among them"
    for name, values in (("best_us", table.best_us), ("bound_us", table.bound_us)):
        if len(values) != cells:
            yield f"got {name} of {len(values)} cells; expected {cells}"
    for name, rows in (("value_us", table.value_us), ("mean_us", table.mean_us)):
        lengths = list(map(len, rows))
        if lengths != [count] * cells:
            yield f"got rows of {name} with the lengths {lengths}; expected {cells} of {count}"
    if len(table.factors) != count:
        yield f"got {len(table.factors)} factors; expected {count}"
    positive = (table.best_us, table.factors, *table.value_us, *table.mean_us)
    if not all(value > 0 for values in positive for value in values):
        yield "got a time or factor that is not above zero; expected positive numbers"
