"""Files of data sets: lines of JSON, compressed with xz.

The first line names the format. Contexts (machine, threads, versions) and workloads are written
once, with a number, and later lines refer to them. Broken lines are skipped, counted and reported.
"""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from layoutsel import documents
from layoutsel.core.file_versions import expected_version
from layoutsel.core.files import replacing
from layoutsel.core.workload import Workload
from layoutsel.cost.readable import (
    UNREADABLE,
    read_boundary,
    read_load_sample,
    read_sample,
    read_workload,
)
from layoutsel.cost.samples import (
    BoundarySample,
    Dataset,
    LoadSample,
    MachineProfile,
    Provenance,
    RecordedModel,
    Sample,
    SkippedPart,
)
from tvm_passes.errors import LayoutselError

FORMAT = "layoutsel-dataset"
"""Name of the format, in the first line of a file."""
VERSION = 1
RENEW = "Measure again with 'layoutsel profile MODEL'"
"""Advice on a log that is too old to be read."""
"""Version of the format, in the first line of a file."""


def write_archive(dataset: Dataset, file: Path | str) -> None:
    """Write `dataset` to `file` atomically; equal data sets give equal bytes.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    with replacing(file) as raw, lzma.open(raw, "wb", preset=9) as stream:
        for line in _lines(dataset):
            text = json.dumps(line, separators=(",", ":"), sort_keys=True)
            stream.write(f"{text}\n".encode())


def _lines(dataset: Dataset) -> Iterator[dict[str, Any]]:
    yield {"kind": "header", "format": FORMAT, "version": VERSION}
    contexts: dict[str, int] = {}
    workloads: dict[str, int] = {}

    def context(provenance: Provenance) -> Iterator[dict[str, Any]]:
        key = _context_key(provenance)
        if key not in contexts:
            contexts[key] = len(contexts)
            yield {"kind": "context", "id": contexts[key], **json.loads(key)}

    def workload(work: Workload) -> Iterator[dict[str, Any]]:
        if work.key not in workloads:
            workloads[work.key] = len(workloads)
            described = documents.to_json(replace(work, hints={}))
            yield {"kind": "workload", "id": workloads[work.key], **described}

    for sample in dataset.samples:
        yield from context(sample.provenance)
        work = sample.workload
        yield from workload(work)
        hints = work.hints.get(str(sample.decision), {})
        yield {
            "kind": "sample",
            "workload": workloads[work.key],
            "decision": str(sample.decision),
            "context": contexts[_context_key(sample.provenance)],
            **_timing(sample),
            "hints": {name: round(value, 4) for name, value in hints.items()},
        }
    for boundary in dataset.boundaries:
        yield from context(boundary.provenance)
        yield {
            "kind": "boundary",
            "boundary": boundary.kind,
            "source": boundary.source,
            "destination": boundary.destination,
            "tensor": asdict(boundary.tensor),
            "context": contexts[_context_key(boundary.provenance)],
            **_timing(boundary),
        }
    for loaded in dataset.loaded:
        yield from context(loaded.provenance)
        yield from workload(loaded.workload)
        yield {
            "kind": "loaded",
            "model": loaded.model,
            "workload": workloads[loaded.workload.key],
            "decision": str(loaded.decision),
            "conditions": documents.to_json(loaded.conditions),
            "context": contexts[_context_key(loaded.provenance)],
            **_timing(loaded),
            "idle_us": round(loaded.idle_us, 4),
        }
    for model in dataset.models:
        yield {"kind": "model", "model": documents.to_json(model)}


def _timing(sample: Sample | BoundarySample | LoadSample) -> dict[str, Any]:
    return {
        "us": round(sample.us, 4),
        "spread_us": round(sample.spread_us, 4),
        "runs": sample.runs,
        "date": sample.provenance.date,
    }


def _context_key(provenance: Provenance) -> str:
    described = {
        "profile": documents.to_json(provenance.profile),
        "versions": dict(provenance.versions),
    }
    return json.dumps(described, sort_keys=True)


class _Reader:
    """Reader of lines that remembers the contexts and workloads which later lines refer to."""

    def __init__(self) -> None:
        self.contexts: dict[int, Provenance] = {}
        self.workloads: dict[int, Workload] = {}
        self.seen = Counter[str]()
        self.samples: list[Sample] = []
        self.boundaries: list[BoundarySample] = []
        self.loaded: list[LoadSample] = []
        self.models: list[RecordedModel] = []
        self.kinds: Mapping[str, Callable[[dict[str, Any]], None]] = {
            "context": self._context,
            "workload": self._workload,
            "sample": self._sample,
            "boundary": self._boundary,
            "loaded": self._loaded,
            "model": self._model,
        }

    def read(self, line: dict[str, Any]) -> None:
        kind = line.pop("kind", None)
        if kind not in self.kinds:
            raise LayoutselError(f"kind {kind!r}")
        self.kinds[kind](line)

    def _number(self, line: dict[str, Any], kind: str) -> int:
        """Return the number of a line; files without numbers count the lines of each kind."""
        number = line.pop("id", self.seen[kind])
        self.seen[kind] += 1
        return documents.from_json(int, number)

    def _context(self, line: dict[str, Any]) -> None:
        number = self._number(line, "context")
        profile = MachineProfile.read(line["profile"])
        versions = documents.from_json(dict[str, str], line["versions"])
        self.contexts[number] = Provenance(profile=profile, versions=versions)

    def _workload(self, line: dict[str, Any]) -> None:
        number = self._number(line, "workload")
        self.workloads[number] = read_workload(line)

    def _provenance(self, line: dict[str, Any]) -> Provenance:
        number = documents.from_json(int, line["context"])
        if number not in self.contexts:
            raise LayoutselError("a context that could not be read")
        return replace(self.contexts[number], date=documents.from_json(str, line["date"]))

    def _known_workload(self, line: dict[str, Any]) -> Workload:
        number = documents.from_json(int, line["workload"])
        if number not in self.workloads:
            raise LayoutselError("a workload that could not be read")
        return self.workloads[number]

    def _sample(self, line: dict[str, Any]) -> None:
        work, provenance = self._known_workload(line), self._provenance(line)
        self.samples.append(
            read_sample(work, line["decision"], line["hints"], _timing_of(line), provenance)
        )

    def _boundary(self, line: dict[str, Any]) -> None:
        places = line["source"], line["destination"]
        provenance = self._provenance(line)
        self.boundaries.append(
            read_boundary(line["boundary"], places, line["tensor"], _timing_of(line), provenance)
        )

    def _loaded(self, line: dict[str, Any]) -> None:
        described = {name: line[name] for name in ("model", "conditions", "idle_us")}
        self.loaded.append(
            read_load_sample(
                self._known_workload(line),
                line["decision"],
                {**described, **_timing_of(line)},
                self._provenance(line),
            )
        )

    def _model(self, line: dict[str, Any]) -> None:
        # Models that were recorded before there were devices state no prices of copies.
        tensors = [{"copy_us": {}, **tensor} for tensor in line["model"]["tensors"]]
        self.models.append(
            documents.from_json(RecordedModel, {**line["model"], "tensors": tensors})
        )


def _timing_of(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in ("us", "spread_us", "runs")}


def read_archive(file: Path | str) -> tuple[Dataset, tuple[SkippedPart, ...]]:
    """Read a file of :func:`write_archive`; returns the data set and its skipped parts.

    Raises
    ------
    LayoutselError
        If `file` cannot be opened, or is not a data set of this version.
    """
    reader, skipped = _Reader(), Counter[str]()
    lines = _read_lines(Path(file), skipped)
    header = _parse(next(lines, "")) or {}
    _check_header(header, str(file))
    for text in lines:
        line = _parse(text)
        if line is None:
            skipped["not a JSON object"] += 1
            continue
        try:
            reader.read(line)
        except UNREADABLE as error:
            skipped[f"{type(error).__name__}: {error}"[:200]] += 1
    dataset = Dataset(
        samples=tuple(reader.samples),
        boundaries=tuple(reader.boundaries),
        loaded=tuple(reader.loaded),
        models=tuple(reader.models),
    )
    return dataset, tuple(
        SkippedPart(file=str(file), reason=reason, count=count) for reason, count in skipped.items()
    )


def _check_header(header: Mapping[str, Any], file: str) -> None:
    """Reject a file that does not start as data sets of this version do."""
    found, version = header.get("format"), header.get("version")
    if found != FORMAT or type(version) is not int:
        raise LayoutselError(
            f"{file}: got {found} {version}; "
            f"expected a data set that starts with {FORMAT} {VERSION}"
        )
    if version != VERSION:
        expected = expected_version(version, (VERSION,), RENEW)
        raise LayoutselError(f"{file}: got a data set of version {version}; expected {expected}")


def _parse(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _read_lines(file: Path, skipped: Counter[str]) -> Iterator[str]:
    try:
        with lzma.open(file, "rt", encoding="utf-8") as stream:
            yield from stream
    except OSError as error:
        raise LayoutselError(f"cannot read {file}: {error.strerror or error}") from error
    except (EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
        if isinstance(error, lzma.LZMAError) and "format not supported" in str(error):
            raise LayoutselError(f"{file}: not compressed with xz; expected a data set") from error
        skipped[f"the rest of the file: {error}"] += 1
