"""Start and duration of every sub-graph, transform and copy: as events, and as medians."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm_ffi

from layoutsel.runtime import timeline
from layoutsel.runtime.traceable import Traceable
from tvm_passes.devices import unit_of_kernel

_KIND_PREFIX = "layoutsel_"
"""Start of the kinds of runtime modules that units generate; the unit's name follows."""
_BUILTIN = "vm.builtin."
"""Start of the names of the virtual machine's own functions."""
_COPY = "vm.builtin.to_device"
"""Function of the virtual machine that copies between devices."""
_COPIES = "copies"
"""Name in place of a unit for copies between devices."""
_PROFILE = "layoutsel.onednn.set_profiling"
"""Function of the plugin that switches the timing of partition steps."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Execution of one sub-graph, transform or copy in one run."""

    name: str
    """Sub-graph id, layouts of a transform (``NCHW>NHWC``), or devices (``cpu>opencl``)."""
    kind: str
    """``subgraph``, ``transform`` or ``copy``."""
    unit: str
    """Compute unit; ``copies`` for a copy."""
    start_us: float
    """Time since the tracer was created, microseconds."""
    duration_us: float
    """Duration, microseconds."""
    run: int
    """Number of the run, from 0."""
    call: int
    """Number of the virtual machine's call within the run; all steps of a partition share one."""
    detail: str
    """Name of the kernel or implementation."""


@dataclass(frozen=True)
class _Call:
    """One call of the virtual machine."""

    number: int
    """Number within the run, from 0."""
    function: str
    """Name of the called function; source and destination for a copy."""
    start_ns: int
    """Start, nanoseconds of :func:`time.perf_counter_ns`."""
    end_ns: int
    """End, nanoseconds of :func:`time.perf_counter_ns`."""


def trace(model: Traceable, inputs: Sequence[np.ndarray], runs: int = 1) -> list[Event]:
    """Run a model and return the events in order of time.

    The steps of a partition have measured durations and derived starts: they are placed one after
    the other up to the partition's end.

    Parameters
    ----------
    model
        Model to run, after a warm-up run.
    inputs
        Checked inputs, from :meth:`CompiledModel.bind`.
    runs
        Number of traced runs.
    """
    tracer = Tracer(model, inputs)
    return [event for run in range(runs) for event in tracer.run(run)[0]]


class Tracer:
    """Traced runs of one model on the same inputs.

    If host and devices overlap, the times of device kernels are the devices' own timestamps.
    Otherwise the host waits for each call before the next.

    Parameters
    ----------
    model
        Model to run.
    inputs
        Checked inputs.
    """

    def __init__(self, model: Traceable, inputs: Sequence[np.ndarray]) -> None:
        self.model = model
        self._partitions = _partitions(model)
        self._calls: list[_Call] = []
        self._is_at_once = timeline.tells_all(model)
        wait = _do_not_wait if self._is_at_once else model.synchronise
        self._call = model.instrumented_call(inputs, _recorder(self._calls, wait))
        self._origin_ns = time.perf_counter_ns()

    def run(self, number: int = 0) -> tuple[list[Event], float]:
        """Run once after a warm-up run; returns the events and the run's microseconds."""
        before = self._steps()
        self._call()
        self._calls.clear()
        with _profiling(), timeline.recording(is_on=self._is_at_once) as recorded:
            whole_us = self._call()
        after = self._steps()
        events: list[Event] = []
        calls = [_timed(call, recorded.take(call.function)) for call in self._calls]
        labels = _labels(calls, self.model.header.get("calls", ()))
        for call, label in zip(calls, labels, strict=True):
            if call.function in self._partitions:
                kind = self._partitions[call.function].kind
                steps = (before[call.function], after[call.function])
                events += _step_events(call, kind, *steps, number, self._origin_ns)
            elif ">" in call.function:
                events.append(_copy_event(call, number, self._origin_ns))
            else:
                events.append(_kernel_event(self.model, call, label, number, self._origin_ns))
        return events, whole_us

    def _steps(self) -> dict[str, list[dict[str, Any]]]:
        return {
            symbol: _steps(self.model, module, symbol)
            for symbol, module in self._partitions.items()
        }


def _timed(call: _Call, times_ns: tuple[int, int] | None) -> _Call:
    """Copy `call` with the start and end of its work on a device."""
    return call if times_ns is None else replace(call, start_ns=times_ns[0], end_ns=times_ns[1])


def _do_not_wait() -> None:
    """Let devices work while the host continues."""


def subgraph_times(
    model: Traceable, inputs: Sequence[np.ndarray], runs: int = 15
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


def _recorder(calls: list[_Call], synchronise: Callable[[], None]) -> Callable[..., None]:
    """Instrument of the virtual machine that appends each call to `calls`."""
    started: list[int] = []

    def instrument(_function: Any, name: str, before: bool, _result: Any, *args: Any) -> None:
        if name.startswith(_BUILTIN) and name != _COPY:
            return
        if before:
            started.append(time.perf_counter_ns())
            return
        synchronise()
        label = name
        if name == _COPY:
            ends = args[0].device, tvm_ffi.device(*args[1:3])
            label = ">".join(end.type + (f"/{end.index}" if end.index else "") for end in ends)
        calls.append(_Call(len(calls), label, started.pop(), time.perf_counter_ns()))

    return instrument


def _labels(calls: Sequence[_Call], known: Sequence[Sequence[str]]) -> list[str]:
    """Label of each call, found by the order of `main`'s calls; passes may have removed some."""
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


def _kernel_event(model: Traceable, call: _Call, label: str, run: int, origin_ns: int) -> Event:
    is_transform = "_to_" in label
    # Labels are names of variables, which have "_" for the dot of layouts with a storage type.
    name = label.replace("_to_", ">").replace("_", ".") if is_transform else label
    return Event(
        name=name or call.function,
        kind="transform" if is_transform else "subgraph",
        unit=unit_of_kernel(call.function) if is_transform or not label else _unit(model, label),
        start_us=(call.start_ns - origin_ns) / 1e3,
        duration_us=(call.end_ns - call.start_ns) / 1e3,
        run=run,
        call=call.number,
        detail=call.function,
    )


def _copy_event(call: _Call, run: int, origin_ns: int) -> Event:
    return Event(
        name=call.function,
        kind="copy",
        unit=_COPIES,
        start_us=(call.start_ns - origin_ns) / 1e3,
        duration_us=(call.end_ns - call.start_ns) / 1e3,
        run=run,
        call=call.number,
        detail=_COPY,
    )


def _unit(model: Traceable, subgraph: str) -> str:
    decision = model.header.get("fallbacks", {}).get(subgraph)
    if decision is None:
        entries = model.plan["subgraphs"]
        decision = next((e["decision"] for e in entries if e["id"] == subgraph), "other")
    return str(decision).split(":")[0]


def _partitions(model: Traceable) -> dict[str, tvm_ffi.Module]:
    """Partitions that report the times of their steps, by symbol."""
    found = {}
    for module in model.modules():
        if module.kind.startswith(_KIND_PREFIX):
            with contextlib.suppress(ValueError, KeyError, AttributeError, RuntimeError):
                symbol = json.loads(module.inspect_source())["symbol"]
                _steps(model, module, symbol)
                found[symbol] = module
    return found


def _steps(model: Traceable, module: tvm_ffi.Module, symbol: str) -> list[dict[str, Any]]:
    """Step times of a partition's primitives for the model's number of threads."""
    return json.loads(model.own_threads.run(module[f"{symbol}.steps"]))


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
    module_kind: str,
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
                unit=module_kind.removeprefix(_KIND_PREFIX),
                start_us=start_us,
                duration_us=duration_us,
                run=run,
                call=call.number,
                detail=f"{step['primitive']} {step['implementation']}",
            )
        )
        start_us += duration_us
    return events
