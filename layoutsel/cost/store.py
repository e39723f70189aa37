"""Persistent measurements: one SQLite file, shared by any number of processes.

A measurement holds for one structural hash, decision, machine, number of threads, and for the
versions that it depends on (:mod:`layoutsel.cost.scopes`). Measurements of other versions stay in
the file unused, and are announced once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import platformdirs

from layoutsel.core.closing import Closing
from layoutsel.core.workload import BoundaryTensor, Cost, Infeasible, Workload
from layoutsel.cost import old_machines, residuals, scopes
from layoutsel.cost.database import Database
from layoutsel.cost.residuals import ResidualRow
from layoutsel.device.outcome import Failure, Outcome, Timing
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Context:
    """Common properties of all measurements of one process."""

    machine: str
    """Fingerprint of the machine."""
    versions: Mapping[str, str]
    """All versions in use; see :mod:`layoutsel.cost.scopes` for their names."""
    threads: int
    """Number of threads that compute."""

    def row(self, within: frozenset[str]) -> tuple[str, str, int]:
        """Return machine, versions and threads as stored, with only the versions of `within`."""
        if within not in self._relevant:
            relevant = scopes.within(self.versions, within)
            self._relevant[within] = json.dumps(relevant, sort_keys=True)
        return self.machine, self._relevant[within], self.threads

    @cached_property
    def _relevant(self) -> dict[frozenset[str], str]:
        """Versions of each set of scopes that was asked for, as stored."""
        return {}

    def changes(self, stored: str) -> list[str]:
        """List the names of versions in `stored`, a text of :meth:`row`, that have changed."""
        try:
            then = dict(json.loads(stored))
        except (TypeError, ValueError):
            return ["something"]
        return [name for name, version in then.items() if self.versions.get(name) != version]

    def is_absent(self, name: str) -> bool:
        """True if the version `name` belongs to a unit that is not in use now."""
        return bool(scopes.scope(name)) and name not in self.versions


def default_path() -> Path:
    """Default file of measurements, in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("layoutsel")) / "measurements.sqlite"


class Store(Closing):
    """The measurements of one context, in one file; a context manager for one thread only.

    A file that is not a database, or has another schema, is moved aside with a warning. If the
    folder cannot be written, or stays locked, measurements are kept in memory, with a warning.
    """

    def __init__(
        self, context: Context, path: Path | str | None = None, *, announce: bool = True
    ) -> None:
        """Open the file of measurements.

        Parameters
        ----------
        context
            Machine, threads and versions.
        path
            File to open; by default :func:`default_path`.
        announce
            True to warn of measurements of other versions.
        """
        self.context = context
        self.path = Path(path) if path is not None else default_path()
        self._database = Database(self.path)
        if announce:
            self._warn_of_stale()

    def close(self) -> None:
        """Close the file; all measurements are saved already."""
        self._database.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Save all measurements made within the context, or none if it fails."""
        return self._database.transaction()

    @property
    def is_kept(self) -> bool:
        """True if measurements outlive the process; False if the file cannot be written."""
        return self._database.is_kept

    def get(self, key: str, decision: Decision, kernel: str = "") -> Outcome | None:
        """Look up the outcome of sub-graph hash `key` under `decision`; None without a measurement.

        `kernel` is the name given to :meth:`put`; see
        :func:`layoutsel.cost.scopes.candidate_scopes`.
        """
        rows = self._query(
            "SELECT median_us, spread_us, runs, failure FROM measurement "
            "WHERE key=? AND decision=? AND machine=? AND versions=? AND threads=?",
            (key, str(decision), *self._candidate(decision, kernel)),
        )
        if not rows:
            return None
        median_us, spread_us, runs, failure = rows[0]
        if failure is not None:
            known = Failure.parse(failure)
            return known if known.is_reproducible else None
        return Timing(us=median_us, spread_us=spread_us, runs=runs)

    def put(self, key: str, decision: Decision, outcome: Outcome, kernel: str = "") -> None:
        """Store `outcome` in place of an older one; it is on disk when this returns.

        A failure that may not happen again, such as a time-out, is not stored. The outcome depends
        only on the code of `kernel`; without a name, on all kernels of the unit.
        """
        if isinstance(outcome, Failure) and not outcome.is_reproducible:
            return
        values = (
            (None, None, None, outcome.text)
            if isinstance(outcome, Failure)
            else (outcome.us, outcome.spread_us, outcome.runs, None)
        )
        self._query(
            "INSERT OR REPLACE INTO measurement VALUES (?,?,?,?,?,?,?,?,?,?)",
            (key, str(decision), *self._candidate(decision, kernel), *values, _now()),
        )

    def describe(self, workload: Workload) -> None:
        """Store the description of `workload`, which training needs in addition to measurements."""
        description = {**asdict(workload), "hints": {}}
        self._query(
            "INSERT OR REPLACE INTO workload VALUES (?,?)", (workload.key, json.dumps(description))
        )
        kernel = scopes.kernel_of(workload)
        for decision, hints in workload.hints.items():
            row = self._candidate(Decision.parse(decision), kernel)
            self._query(
                "INSERT OR REPLACE INTO hints VALUES (?,?,?,?,?,?)",
                (workload.key, decision, *row, json.dumps(dict(hints))),
            )

    def describe_machine(self, description: Mapping[str, Any]) -> None:
        """Store the description of the machine; earlier descriptions of devices remain."""
        before = self._described()
        devices = {**before.get("devices", {}), **description.get("devices", {})}
        links = [*before.get("links", []), *description.get("links", [])]
        distinct = {(link["source"], link["destination"]): link for link in links}
        parts = {"devices": devices, "links": list(distinct.values())}
        described = json.dumps({**description, **parts})
        self._query(
            "INSERT OR REPLACE INTO machine VALUES (?,?,?)",
            (self.context.machine, self.context.threads, described),
        )

    def _described(self) -> dict[str, Any]:
        """Return the stored description of the machine, with links in the present form."""
        rows = self._query(
            "SELECT description FROM machine WHERE machine=? AND threads=?",
            (self.context.machine, self.context.threads),
        )
        try:
            kept = {"devices": {}, "links": [], **json.loads(rows[0][0])}
            return old_machines.upgraded(kept, str(self.path))
        except (IndexError, KeyError, TypeError, ValueError, LayoutselError):
            return {}  # no description, or an unreadable one

    def cost(self, key: str, decision: Decision, kernel: str = "") -> Cost | Infeasible | None:
        """Look up the outcome of :meth:`get` as an answer of a cost model."""
        outcome = self.get(key, decision, kernel)
        if outcome is None:
            return None
        if isinstance(outcome, Failure):
            return Infeasible(reason=outcome.reason)
        return Cost.timed(outcome.us, outcome.spread_us, "measured")

    def put_boundary(
        self, kind: str, source: str, destination: str, tensor: BoundaryTensor, timing: Timing
    ) -> None:
        """Store the time of a step of a boundary.

        Parameters
        ----------
        kind
            ``transform`` or ``crossing``.
        source, destination
            Two layouts, or two placed units.
        tensor
            Tensor that passes the boundary.
        timing
            Measured time.
        """
        self._query(
            "INSERT OR REPLACE INTO boundary VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                *(kind, source, destination, json.dumps(tensor.shape), tensor.dtype),
                *self.context.row(scopes.boundary_scopes(kind, source, destination)),
                tensor.bytes,
                *(timing.us, timing.spread_us, timing.runs, _now()),
            ),
        )

    def boundary(
        self, kind: str, source: str, destination: str, tensor: BoundaryTensor
    ) -> Cost | None:
        """Return the cost of a boundary step: measured for this shape, else interpolated by bytes.

        None if no tensor of this element type was measured.
        """
        rows = self._query(
            "SELECT bytes, median_us, spread_us, shape FROM boundary WHERE kind=? AND source=? "
            "AND destination=? AND dtype=? AND machine=? AND versions=? AND threads=? "
            "ORDER BY bytes",
            (
                *(kind, source, destination, tensor.dtype),
                *self.context.row(scopes.boundary_scopes(kind, source, destination)),
            ),
        )
        shape = json.dumps(tensor.shape)
        for _, median_us, spread_us, measured_shape in rows:
            if measured_shape == shape:
                return Cost.timed(median_us, spread_us, "measured")
        return interpolate([row[:3] for row in rows], tensor.bytes)

    def put_residual(self, row: ResidualRow) -> None:
        """Store a prediction error in place of an older one of the same prediction."""
        where = self.context.row(row.scopes)
        self._query(residuals.INSERT, (*row.columns, *where, _now()))

    def residuals(self) -> tuple[ResidualRow, ...]:
        """Return all stored prediction errors that hold for this context, the oldest first."""
        rows = self._query(residuals.SELECT, (self.context.machine, self.context.threads))
        return tuple(
            ResidualRow.read(row) for versions, *row in rows if not self.context.changes(versions)
        )

    def count(self) -> int:
        """Count the measurements of sub-graphs that hold for this context."""
        rows = self._query(
            "SELECT versions, COUNT(*) FROM measurement WHERE machine=? AND threads=? "
            "GROUP BY versions",
            (self.context.machine, self.context.threads),
        )
        return sum(count for versions, count in rows if not self.context.changes(versions))

    def forget_failures(self) -> int:
        """Delete all failures in the file to allow new attempts; returns their number."""
        return len(
            self._query("DELETE FROM measurement WHERE failure IS NOT NULL RETURNING machine")
        )

    def _candidate(self, decision: Decision, kernel: str) -> tuple[str, str, int]:
        """Return machine, versions and threads of a candidate's row."""
        return self.context.row(scopes.candidate_scopes(kernel, decision))

    def _query(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._database.query(statement, values)

    def _warn_of_stale(self) -> None:
        rows = self._query(
            "SELECT versions, COUNT(*) FROM measurement WHERE machine=? GROUP BY versions",
            (self.context.machine,),
        )
        absent = self.context.is_absent
        changes = {
            text: [name for name in self.context.changes(text) if not absent(name)]
            for text, _ in rows
        }
        count = sum(count for text, count in rows if changes[text])
        if count:
            _LOG.warning(
                "%d measurements in %s are stale, made with other versions of %s: ignored",
                count,
                self.path,
                ", ".join(sorted({name for names in changes.values() for name in names})),
            )


def forget_failures(path: Path) -> int:
    """Delete all failures in the file at `path`, if it exists; returns their number.

    Raises
    ------
    LayoutselError
        If the file cannot be written.
    """
    if not path.exists():
        return 0
    with Store(Context(machine="", versions={}, threads=1), path, announce=False) as store:
        count = store.forget_failures()
        if not store.is_kept:
            raise LayoutselError(
                f"cannot forget failures in {path}: it cannot be written, or another process "
                "keeps it locked; try again when that has ended"
            )
    return count


def interpolate(points: Sequence[tuple[int, float, float]], size: int) -> Cost | None:
    """Interpolate times by size: linear between points, constant below, proportional above.

    Parameters
    ----------
    points
        Bytes, time and spread in microseconds of each measurement, by size.
    size
        Bytes of the tensor.

    Returns
    -------
    Cost or None
        Interpolated time with a relative spread of at least 10 %; None without points.
    """
    if not points:
        return None
    smallest, largest = points[0], points[-1]
    if size <= smallest[0]:
        us, spread_us = smallest[1], smallest[2]
    elif size >= largest[0]:
        factor = size / max(largest[0], 1)
        us, spread_us = largest[1] * factor, largest[2] * factor
    else:
        above = next(i for i, point in enumerate(points) if point[0] >= size)
        (x0, y0, s0), (x1, y1, s1) = points[above - 1], points[above]
        weight = (size - x0) / (x1 - x0)
        us, spread_us = y0 + weight * (y1 - y0), max(s0, s1)
    return Cost.timed(us, max(spread_us, 0.1 * us), "interpolated")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
