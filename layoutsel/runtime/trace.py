"""When every sub-graph and transform ran: as events, as medians, and as a file for chrome://tracing and Perfetto."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

from layoutsel.planning import documents
from layoutsel.runtime.compiled import CompiledModel

_KIND_PREFIX = "layoutsel_"
"""Of the kinds of runtime modules that units generate; the unit's name follows."""
_BUILTIN = "vm.builtin."
_PROFILE = "layoutsel.onednn.set_profiling"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One sub-graph or transform of one run."""

    name: str
    """Sub-graph id; for a transform its layouts, such as ``NCHW>NHWC``."""
    kind: str
    """``subgraph`` or ``transform``."""
    unit: str
    start_us: float
    """Since the start of the first run, microseconds."""
    duration_us: float
    run: int
    """Number of the run, from 0."""
    detail: str
    """Kernel or implementation that ran."""


@dataclass(frozen=True)
class _Call:
    """A call that the virtual machine made."""

    function: str
    start_ns: int
    end_ns: int


def trace(model: CompiledModel, inputs: Sequence[np.ndarray], runs: int = 1) -> list[Event]:
    """Run `model` and tell when everything ran, in order of time.

    Within a partition, steps are laid end to end up to its end: their durations are measured, their starts follow.

    Parameters
    ----------
    model
        What to run; warmed up first.
    inputs
        Checked, as :meth:`CompiledModel.bind` returns them.
    runs
        How often to run.
    """
    partitions = _partitions(model)
    model.run_all(inputs)
    events: list[Event] = []
    origin_ns = time.perf_counter_ns()
    with _profiling():
        for run in range(runs):
            before = {symbol: _steps(module, symbol) for symbol, module in partitions.items()}
            calls = _record(model, inputs)
            labels = _labels(calls, model.header.get("calls", ()))
            for call, label in zip(calls, labels, strict=True):
                if call.function in partitions:
                    module = partitions[call.function]
                    after = _steps(module, call.function)
                    events += _step_events(
                        call, module, before[call.function], after, run, origin_ns
                    )
                else:
                    events.append(_kernel_event(model, call, label, run, origin_ns))
    return events


def subgraph_times(
    model: CompiledModel, inputs: Sequence[np.ndarray], runs: int = 15
) -> dict[str, float]:
    """Median time of each sub-graph over `runs` runs, microseconds."""
    sums: dict[tuple[str, int], float] = {}
    for event in trace(model, inputs, runs):
        if event.kind == "subgraph":
            key = (event.name, event.run)
            sums[key] = sums.get(key, 0.0) + event.duration_us
    by_name: dict[str, list[float]] = {}
    for (name, _), us in sums.items():
        by_name.setdefault(name, []).append(us)
    return {name: statistics.median(times) for name, times in by_name.items()}


def write_trace(
    model: CompiledModel, inputs: Sequence[np.ndarray], path: str | Path, runs: int = 3
) -> None:
    """Write a Chrome trace of `runs` runs to `path`, whole or not at all: one row per unit.

    Raises
    ------
    LayoutselError
        If it cannot be written.
    """
    documents.save(chrome_trace(model.header, trace(model, inputs, runs)), path)


def chrome_trace(header: Mapping[str, Any], events: Sequence[Event]) -> dict[str, Any]:
    """`events` in the Trace Event Format (JSON object form, complete events)."""
    units = sorted({event.unit for event in events})
    rows = {unit: number for number, unit in enumerate(units, start=1)}
    known = {subgraph["id"]: subgraph for subgraph in header["plan"]["subgraphs"]}
    entries = [_metadata("process_name", 0, header["model"]), _metadata("thread_name", 0, "runs")]
    entries += [_metadata("thread_name", row, f"unit {unit}") for unit, row in rows.items()]
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
            _complete(
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
        yield _complete(f"run {run}", "run", 0, start_us, end_us - start_us, {})


def _metadata(what: str, row: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": 1, "tid": row, "args": {"name": name}}


def _complete(
    name: str,
    category: str,
    row: int,
    start_us: float,
    duration_us: float,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
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


def _record(model: CompiledModel, inputs: Sequence[np.ndarray]) -> list[_Call]:
    calls: list[_Call] = []
    started: list[int] = []

    def instrument(_function: Any, name: str, before: bool, *_rest: Any) -> None:
        if name.startswith(_BUILTIN):
            return
        if before:
            started.append(time.perf_counter_ns())
        else:
            calls.append(_Call(name, started.pop(), time.perf_counter_ns()))

    model.run_instrumented(inputs, instrument)
    return calls


def _labels(calls: Sequence[_Call], known: Sequence[Sequence[str]]) -> list[str]:
    """What each call computes, by the order in which `main` makes them; passes may have dropped some."""
    labels, position = [], 0
    for call in calls:
        names = [function for function, _ in known[position:]]
        if call.function in names:
            position += names.index(call.function)
            labels.append(known[position][1])
            position += 1
        else:
            labels.append("")
    return labels


def _kernel_event(model: CompiledModel, call: _Call, label: str, run: int, origin_ns: int) -> Event:
    is_transform = "_to_" in label
    return Event(
        name=label.replace("_to_", ">") or call.function,
        kind="transform" if is_transform else "subgraph",
        unit=call.function.split("_")[0] if is_transform or not label else _unit(model, label),
        start_us=(call.start_ns - origin_ns) / 1e3,
        duration_us=(call.end_ns - call.start_ns) / 1e3,
        run=run,
        detail=call.function,
    )


def _unit(model: CompiledModel, subgraph: str) -> str:
    decision = model.header.get("fallbacks", {}).get(subgraph)
    if decision is None:
        entries = model.plan["subgraphs"]
        decision = next((e["decision"] for e in entries if e["id"] == subgraph), "other")
    return str(decision).split(":")[0]


def _partitions(model: CompiledModel) -> dict[str, tvm_ffi.Module]:
    """The partitions that can tell of their steps, by symbol."""
    found = {}
    for module in model.modules():
        if module.kind.startswith(_KIND_PREFIX):
            with contextlib.suppress(ValueError, KeyError, AttributeError, RuntimeError):
                symbol = json.loads(module.inspect_source())["symbol"]
                _steps(module, symbol)
                found[symbol] = module
    return found


def _steps(module: tvm_ffi.Module, symbol: str) -> list[dict[str, Any]]:
    return json.loads(module[f"{symbol}.steps"]())


@contextlib.contextmanager
def _profiling() -> Iterator[None]:
    switch = tvm_ffi.get_global_func(_PROFILE, allow_missing=True)
    if switch is None:
        yield
        return
    switch(True)
    try:
        yield
    finally:
        switch(False)


def _step_events(
    call: _Call,
    module: tvm_ffi.Module,
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    run: int,
    origin_ns: int,
) -> list[Event]:
    durations = [
        max(0.0, new["us"] * new["calls"] - old["us"] * old["calls"])
        for old, new in zip(before, after, strict=True)
    ]
    start_us = (call.end_ns - origin_ns) / 1e3 - sum(durations)
    events = []
    for step, duration_us in zip(after, durations, strict=True):
        is_transform = ">" in step["subgraph"]
        events.append(
            Event(
                name=step["subgraph"],
                kind="transform" if is_transform else "subgraph",
                unit=module.kind.removeprefix(_KIND_PREFIX),
                start_us=start_us,
                duration_us=duration_us,
                run=run,
                detail=f"{step['primitive']} {step['implementation']}",
            )
        )
        start_us += duration_us
    return events
