"""Measurements that outlive the process: one SQLite file, shared by any number of processes.

A measurement holds for one structural hash, decision, machine and number of threads, and for the versions that it depends
on (:mod:`layoutsel.cost.scopes`). Measurements of other versions stay in the file, are never used, and are announced once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import platformdirs

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
    """What all measurements of one process have in common."""

    machine: str
    """Fingerprint of the machine."""
    versions: Mapping[str, str]
    """All that are in use; see :mod:`layoutsel.cost.scopes` for their names."""
    threads: int

    def row(self, within: frozenset[str]) -> tuple[str, str, int]:
        """Machine, versions and threads as they are stored for what depends on the scopes `within`."""
        relevant = scopes.within(self.versions, within)
        return self.machine, json.dumps(relevant, sort_keys=True), self.threads

    def changes(self, stored: str) -> list[str]:
        """Names of the versions in `stored`, as :meth:`row` wrote them, that are others now."""
        try:
            then = dict(json.loads(stored))
        except (TypeError, ValueError):
            return ["something"]
        return [name for name, version in then.items() if self.versions.get(name) != version]

    def is_absent(self, name: str) -> bool:
        """True if the version `name` belongs to a unit that is not in use now."""
        return bool(scopes.scope(name)) and name not in self.versions


def default_path() -> Path:
    """Where measurements are kept unless told otherwise: in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("layoutsel")) / "measurements.sqlite"


class Store:
    """The measurements of one context, in one file. A context manager; not for use by several threads.

    A file that is no database, or of another schema, is moved aside with a warning. Where the folder cannot be
    written, or stays locked, measurements are kept in memory, with a warning.
    """

    def __init__(
        self, context: Context, path: Path | str | None = None, *, announce: bool = True
    ) -> None:
        """Open the file at `path`; stale measurements are announced unless that has been done."""
        self.context = context
        self.path = Path(path) if path is not None else default_path()
        self._database = Database(self.path)
        if announce:
            self._warn_of_stale()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; every measurement is in it already."""
        self._database.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Keep all that is put within, or nothing where that fails."""
        return self._database.transaction()

    @property
    def is_kept(self) -> bool:
        """True if measurements outlive the process; False where the file cannot be written."""
        return self._database.is_kept

    def get(self, key: str, decision: Decision, kernel: str = "") -> Outcome | None:
        """Look up what was measured for sub-graph hash `key` under `decision`; None if nothing was.

        `kernel` is the same as was given to :meth:`put`; see :func:`layoutsel.cost.scopes.candidate_scopes`.
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
        """Keep `outcome`, in place of an older one; on disk when this returns.

        A failure that need not happen again, such as a time-out, is not kept. The outcome depends on the code of `kernel` alone where that is known, else on that of all its unit's kernels.
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
        """Keep what `workload` is, so that its measurements can be learned from."""
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
        """Keep what the machine of this context is; devices that were described before stay described."""
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
        """What was kept of the machine before, with links in the present form."""
        rows = self._query(
            "SELECT description FROM machine WHERE machine=? AND threads=?",
            (self.context.machine, self.context.threads),
        )
        try:
            kept = {"devices": {}, "links": [], **json.loads(rows[0][0])}
            return old_machines.upgraded(kept, str(self.path))
        except (IndexError, KeyError, TypeError, ValueError, LayoutselError):
            return {}  # none before, or nothing that can be read

    def cost(self, key: str, decision: Decision, kernel: str = "") -> Cost | Infeasible | None:
        """Look up the same as :meth:`get`, as an answer of a cost model."""
        outcome = self.get(key, decision, kernel)
        if outcome is None:
            return None
        if isinstance(outcome, Failure):
            return Infeasible(reason=outcome.reason)
        return Cost.timed(outcome.us, outcome.spread_us, "measured")

    def put_boundary(
        self, kind: str, source: str, destination: str, tensor: BoundaryTensor, timing: Timing
    ) -> None:
        """Keep the time of a ``transform`` or ``crossing`` of `tensor`."""
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
        """Time of a boundary: measured for this shape, else interpolated by bytes; None if nothing is near."""
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
        """Keep how far a prediction was off, in place of an older one of the same."""
        where = self.context.row(row.scopes)
        self._query(residuals.INSERT, (*row.columns, *where, _now()))

    def residuals(self) -> tuple[ResidualRow, ...]:
        """All that :meth:`put_residual` kept and that holds for this context, the oldest first."""
        rows = self._query(residuals.SELECT, (self.context.machine, self.context.threads))
        return tuple(
            ResidualRow.read(row) for versions, *row in rows if not self.context.changes(versions)
        )

    def count(self) -> int:
        """How many measurements of sub-graphs hold for this context."""
        rows = self._query(
            "SELECT versions, COUNT(*) FROM measurement WHERE machine=? AND threads=? GROUP BY versions",
            (self.context.machine, self.context.threads),
        )
        return sum(count for versions, count in rows if not self.context.changes(versions))

    def forget_failures(self) -> int:
        """Delete all failures in the file, so that they are tried again; returns how many there were."""
        return len(
            self._query("DELETE FROM measurement WHERE failure IS NOT NULL RETURNING machine")
        )

    def _candidate(self, decision: Decision, kernel: str) -> tuple[str, str, int]:
        """Machine, versions and threads of a candidate's row."""
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
    """Delete all failures in the file at `path`, where there is one; returns how many there were.

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
                f"cannot forget failures in {path}: it cannot be written, or another process keeps it locked; "
                "try again when that has ended"
            )
    return count


def interpolate(points: Sequence[tuple[int, float, float]], size: int) -> Cost | None:
    """Linear in bytes between measured sizes, constant below the smallest, proportional above the largest."""
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
