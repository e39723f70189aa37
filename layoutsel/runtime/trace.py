"""When every sub-graph, transform and copy between devices ran: as events, and as medians."""

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
"""Of the kinds of runtime modules that units generate; the unit's name follows."""
_BUILTIN = "vm.builtin."
_COPY = "vm.builtin.to_device"
_COPIES = "copies"
"""What stands for the unit of copies between devices."""
_PROFILE = "layoutsel.onednn.set_profiling"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One sub-graph or transform of one run."""

    name: str
    """Sub-graph id; for a transform its layouts, such as ``NCHW>NHWC``; for a copy its devices, such as ``cpu>opencl``."""
    kind: str
    """``subgraph``, ``transform`` or ``copy``."""
    unit: str
    start_us: float
    """Since the start of the first run, microseconds."""
    duration_us: float
    run: int
    """Number of the run, from 0."""
    call: int
    """Number, within the run, of the virtual machine's call that it was done by: one for all steps of a partition."""
    detail: str
    """Kernel or implementation that ran."""


@dataclass(frozen=True)
class _Call:
    """A call that the virtual machine made."""

    number: int
    function: str
    start_ns: int
    end_ns: int


def trace(model: Traceable, inputs: Sequence[np.ndarray], runs: int = 1) -> list[Event]:
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
    tracer = Tracer(model, inputs)
    return [event for run in range(runs) for event in tracer.run(run)[0]]


class Tracer:
    """Runs `model` on checked `inputs` and tells when everything ran.

    Where devices work while the host does, kernels of devices have the times that they themselves tell. Else each is waited
    for before the next call.
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
        """Run once, directly after a run to warm up: the events, and the microseconds that all of it took."""
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
    """`call` with start and end of what a device did of it."""
    return call if times_ns is None else replace(call, start_ns=times_ns[0], end_ns=times_ns[1])


def _do_not_wait() -> None:
    """Devices go on while the host does."""


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
    """Make an instrument of the virtual machine that appends to `calls`; devices finish each before the next."""
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


def _kernel_event(model: Traceable, call: _Call, label: str, run: int, origin_ns: int) -> Event:
    is_transform = "_to_" in label
    # A variable's name has no dot, as layouts with a storage have.
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
    """The partitions that can tell of their steps, by symbol."""
    found = {}
    for module in model.modules():
        if module.kind.startswith(_KIND_PREFIX):
            with contextlib.suppress(ValueError, KeyError, AttributeError, RuntimeError):
                symbol = json.loads(module.inspect_source())["symbol"]
                _steps(model, module, symbol)
                found[symbol] = module
    return found


def _steps(model: Traceable, module: tvm_ffi.Module, symbol: str) -> list[dict[str, Any]]:
    """Of the primitives for the model's number of threads."""
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
