"""Export of run events in the file format of chrome://tracing and Perfetto."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel import documents
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.trace import Event, trace


def write_trace(
    model: CompiledModel, inputs: Sequence[np.ndarray], path: str | Path, runs: int = 3
) -> None:
    """Write a Chrome trace of `runs` runs to `path` atomically, with one row per unit.

    Raises
    ------
    LayoutselError
        If the file cannot be written.
    """
    documents.save(chrome_trace(model.header, trace(model, inputs, runs)), path)


def chrome_trace(header: Mapping[str, Any], events: Sequence[Event]) -> dict[str, Any]:
    """Convert `events` to the Trace Event Format (JSON object form, complete events)."""
    units = sorted({event.unit for event in events})
    rows = {unit: number for number, unit in enumerate(units, start=1)}
    known = {subgraph["id"]: subgraph for subgraph in header["plan"]["subgraphs"]}
    entries = [metadata("process_name", 0, header["model"]), metadata("thread_name", 0, "runs")]
    entries += [metadata("thread_name", row, f"unit {unit}") for unit, row in rows.items()]
    entries += list(_run_entries(events))
    for event in events:
        subgraph = known.get(event.name)
        arguments: dict[str, Any] = {"detail": event.detail}
        title = event.name
        if subgraph is not None:
            title = f"{event.name} {'+'.join(subgraph['operators'])}"
            arguments |= {
                "decision": subgraph["decision"],
                "names": subgraph.get("names", []),
                "predicted_us": subgraph["cost_us"],
            }
        entries.append(
            complete(
                title, event.kind, rows[event.unit], event.start_us, event.duration_us, arguments
            )
        )
    return {
        "traceEvents": entries,
        "displayTimeUnit": "ms",
        "otherData": {"model": header["model"], "machine": header.get("machine", "")},
    }


def _run_entries(events: Sequence[Event]) -> Iterator[dict[str, Any]]:
    for run in sorted({event.run for event in events}):
        members = [event for event in events if event.run == run]
        start_us = min(event.start_us for event in members)
        end_us = max(event.start_us + event.duration_us for event in members)
        yield complete(f"run {run}", "run", 0, start_us, end_us - start_us, {})


def metadata(what: str, row: int, name: str) -> dict[str, Any]:
    """Name the process or a row of a trace."""
    return {"ph": "M", "name": what, "pid": 1, "tid": row, "args": {"name": name}}


def complete(
    name: str,
    category: str,
    row: int,
    start_us: float,
    duration_us: float,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """Entry of a trace with start and duration."""
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": 1,
        "tid": row,
        "ts": round(start_us, 3),
        "dur": round(duration_us, 3),
        "args": dict(arguments),
    }
