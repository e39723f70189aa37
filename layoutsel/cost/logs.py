"""Readers of measurement logs: data sets and measurement stores.

Unreadable parts are counted by reason.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from layoutsel import documents
from layoutsel.core.file_versions import expected_version
from layoutsel.cost.archive import RENEW, read_archive
from layoutsel.cost.readable import UNREADABLE, read_boundary, read_sample, read_workload
from layoutsel.cost.samples import (
    BoundarySample,
    Dataset,
    MachineProfile,
    Provenance,
    Sample,
    SkippedPart,
    quietest,
)
from layoutsel.cost.store_file import SCHEMA_VERSION
from tvm_passes.errors import LayoutselError

_SAMPLES = """
    SELECT m.key, m.decision, m.machine, m.versions, m.threads, m.median_us, m.spread_us, m.runs,
           m.failure, m.date, w.description, h.hints
    FROM measurement m LEFT JOIN workload w ON w.key = m.key
    LEFT JOIN hints h ON h.key = m.key AND h.decision = m.decision AND h.machine = m.machine
         AND h.versions = m.versions AND h.threads = m.threads
    ORDER BY m.date, m.key, m.decision"""
_BOUNDARIES = """
    SELECT kind, source, destination, shape, dtype, bytes, machine, versions, threads,
           median_us, spread_us, runs, date FROM boundary
           ORDER BY date, kind, source, destination, shape"""

Result = tuple[Dataset, tuple[SkippedPart, ...]]
"""A data set, and the parts of its files that could not be read."""


def read_logs(files: Iterable[Path]) -> Result:
    """Read and join logs, each a data set (``.jsonl.xz``) or a measurement store (``.sqlite``).

    If a candidate was measured several times on one machine, the least noisy measurement is used.

    Raises
    ------
    LayoutselError
        If a file is neither, or cannot be opened.
    """
    dataset, skipped = Dataset(), list[SkippedPart]()
    for file in files:
        more, without = _reader(file)(file)
        dataset += more
        skipped += without
    return replace(dataset, samples=quietest(dataset.samples)), tuple(skipped)


def _reader(file: Path) -> Callable[[Path], Result]:
    try:
        with file.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise LayoutselError(f"cannot read {file}: {error.strerror}") from error
    for magic, reader in _READERS.items():
        if start.startswith(magic):
            return reader
    raise LayoutselError(
        f"{file}: not a log; expected a data set (.jsonl.xz) or a measurement store (.sqlite)"
    )


def read_store(file: Path) -> Result:
    """Read the measurements of all contexts of a store, including those of other versions.

    Raises
    ------
    LayoutselError
        If `file` is not a readable measurement store.
    """
    skipped: Counter[str] = Counter()
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        try:
            _check_version(connection, file)
            machines = _machines(connection, skipped)
            samples = _samples(connection, machines, skipped)
            boundaries = _boundaries(connection, machines, skipped)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise LayoutselError(
            f"{file}: not a measurement store that can be read: {error}"
        ) from error
    found = tuple(SkippedPart(file=str(file), reason=r, count=n) for r, n in skipped.items())
    return Dataset(samples=samples, boundaries=boundaries), found


def _check_version(connection: sqlite3.Connection, file: Path) -> None:
    """Reject a store of another version; 0 is a store whose making was interrupted."""
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    if version not in (0, SCHEMA_VERSION):
        expected = expected_version(version, (SCHEMA_VERSION,), RENEW)
        raise LayoutselError(f"{file}: got measurements of version {version}; expected {expected}")


_READERS: Mapping[bytes, Callable[[Path], Result]] = {
    b"\xfd7zXZ\x00": read_archive,
    b"SQLite format 3\x00": read_store,
}
"""Readers by the first bytes of a file."""


def _machines(
    connection: sqlite3.Connection, skipped: Counter[str]
) -> dict[tuple[str, int], MachineProfile]:
    profiles = {}
    for fingerprint, threads, text in connection.execute("SELECT * FROM machine"):
        try:
            described = json.loads(text)
            parts = {
                part: described.pop(part)
                for part in ("peaks", "devices", "links")
                if part in described
            }
            profiles[fingerprint, threads] = MachineProfile.read({"machine": described, **parts})
        except UNREADABLE:
            skipped["a machine's description that is broken"] += 1
    return profiles


def _provenance(
    machines: Mapping[tuple[str, int], MachineProfile],
    machine: str,
    threads: int,
    versions: str,
    date: str,
) -> Provenance:
    if (machine, threads) not in machines:
        raise LayoutselError("its machine is not described: measured by an older version")
    profile = machines[machine, threads]
    found = documents.from_json(dict[str, str], json.loads(versions))
    return Provenance(profile=profile, versions=found, date=date)


def _samples(
    connection: sqlite3.Connection,
    machines: Mapping[tuple[str, int], MachineProfile],
    skipped: Counter[str],
) -> tuple[Sample, ...]:
    samples = []
    for row in connection.execute(_SAMPLES):
        _, decision, machine, versions, threads, us, spread_us, runs, failure, date, text, hints = (
            row
        )
        try:
            if failure is not None:
                raise LayoutselError("the candidate failed")
            if text is None:
                raise LayoutselError("its workload is not described: measured by an older version")
            work, said = read_workload(json.loads(text)), json.loads(hints) if hints else {}
            timing = {"us": us, "spread_us": spread_us, "runs": runs}
            provenance = _provenance(machines, machine, threads, versions, date)
            samples.append(read_sample(work, decision, said, timing, provenance))
        except UNREADABLE as error:
            skipped[str(error)[:200]] += 1
    return tuple(samples)


def _boundaries(
    connection: sqlite3.Connection,
    machines: Mapping[tuple[str, int], MachineProfile],
    skipped: Counter[str],
) -> tuple[BoundarySample, ...]:
    samples = []
    for row in connection.execute(_BOUNDARIES):
        kind, source, destination, shape, dtype, nbytes, machine, versions, threads, *timing = row
        us, spread_us, runs, date = timing
        try:
            tensor = {"shape": json.loads(shape), "dtype": dtype, "bytes": nbytes}
            timed = {"us": us, "spread_us": spread_us, "runs": runs}
            provenance = _provenance(machines, machine, threads, versions, date)
            samples.append(read_boundary(kind, (source, destination), tensor, timed, provenance))
        except UNREADABLE as error:
            skipped[str(error)[:200]] += 1
    return tuple(samples)
