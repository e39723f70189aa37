"""What failed on a device, in one sentence: the sub-graph, the device, and what its driver says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tvm_ffi

from layoutsel.device.virtual_machine import synchronise
from layoutsel.errors import DeviceError
from tvm_passes.devices import DEVICE_TYPES, HOST, ask_driver

MEMORY, BUILD, LOST, OTHER = "memory", "build", "lost", "other"

_NAME, _MEMORY = 5, 14
"""TVM's numbers of the attributes."""
_QUOTED = 600
"""Characters of a driver's message that are quoted; the exception's cause has all of it."""
_KINDS = {number: kind for kind, number in DEVICE_TYPES.items()}


@dataclass(frozen=True)
class Cause:
    """A way in which devices fail."""

    sentence: str
    signs: tuple[str, ...]
    """What drivers' messages have in them then, in lower case."""


CAUSES: Mapping[str, Cause] = {
    BUILD: Cause(
        "the driver does not build its kernel",
        ("does not build", "build_program_failure", "invalid_ptx", "no_binary_for_gpu"),
    ),
    MEMORY: Cause(
        "out of memory",
        ("out of memory", "no room", "allocation_failure", "invalid_buffer_size", "out_of_host"),
    ),
    LOST: Cause(
        "the device is lost",
        (
            *("is lost", "not_available", "device_not_found", "invalid_device", "invalid_context"),
            *("invalid_command_queue", "no cuda-capable device", "launch failure", "launch_failed"),
            *("illegal memory access", "illegal_address", "uncorrectable", "device_unavailable"),
        ),
    ),
    OTHER: Cause("the device reports an error", ("",)),
}
"""By name; the first one with a sign in the message is taken."""


def check_not_forked(devices: Sequence[str]) -> None:
    """Refuse kinds of devices that were in use before this process was forked; raises :class:`DeviceError`."""
    for kind in devices:
        if kind != HOST and (reason := ask_driver(kind)):
            raise DeviceError(f"device {kind!r}: {reason}", device=kind, cause=LOST)


@dataclass(frozen=True, kw_only=True)
class FailureLocation:
    """Where a run failed."""

    device: str
    """Kind of the device's target."""
    labels: tuple[str, ...] = ()
    """The sub-graph or transform that it was at; several where it is one of these."""
    asked_bytes: int | None = None
    """Memory that was asked for."""


class Watch:
    """An instrument of the virtual machine that knows what it was at when it failed.

    Parameters
    ----------
    calls
        What `main` calls, in order: the function, and the sub-graph or transform that it computes.
    devices
        Kinds of the devices, as the machine numbers them.
    """

    def __init__(self, calls: Sequence[Sequence[str]], devices: Sequence[str]) -> None:
        self._calls = calls
        self._devices = devices
        self._next = 0
        self._last: dict[str, str] = {}
        self.began = False
        """True if there was any call."""
        self.place: FailureLocation | None = None
        """The call on a device that was begun and did not end."""

    def __call__(self, _function: Any, name: str, before: bool, _result: Any, *args: Any) -> None:
        """Take note of a call, before and after it."""
        if before:
            self.began = True
            self.place = _BUILTINS.get(name, Watch._kernel)(self, name, args)
        elif self.place is not None:
            # What a device fails at now belongs to this call.
            synchronise(self._devices)
            self.place = None

    def _kernel(self, name: str, args: Sequence[Any]) -> FailureLocation | None:
        if name.startswith("vm.builtin."):
            return None
        names = [function for function, _ in self._calls[self._next :]]
        label = ""
        if name in names:
            self._next += names.index(name) + 1
            label = self._calls[self._next - 1][1]
        tensors = [value for value in args if isinstance(value, tvm_ffi.Tensor)]
        device = _kind_of(tensors[-1].device) if tensors else HOST
        self._last[device] = label
        return _on(device, label)

    def _storage(self, _name: str, args: Sequence[Any]) -> FailureLocation | None:
        _machine, shape, number, *_ = args
        device = self._devices[number] if number < len(self._devices) else HOST
        return _on(device, self._coming(), asked_bytes=math.prod(shape))

    def _copy(self, _name: str, args: Sequence[Any]) -> FailureLocation | None:
        tensor, destination, *_ = args
        device = _KINDS[destination]
        if device != HOST:
            return _on(device, self._coming())
        source = _kind_of(tensor.device)
        return _on(source, self._last.get(source, ""))

    def _reshape(self, _name: str, _args: Sequence[Any]) -> None:
        # TVM puts it in place of a kernel.
        if self._next < len(self._calls) and "reshape" in self._calls[self._next][0]:
            self._next += 1

    def _coming(self) -> str:
        """What the next kernel computes: memory and copies come right before who needs them."""
        return self._calls[self._next][1] if self._next < len(self._calls) else ""


_BUILTINS: Mapping[str, Callable[[Watch, str, Sequence[Any]], FailureLocation | None]] = {
    "vm.builtin.alloc_storage": Watch._storage,
    "vm.builtin.to_device": Watch._copy,
    "vm.builtin.reshape": Watch._reshape,
}


def _kind_of(device: Any) -> str:
    return _KINDS.get(device.dlpack_device_type(), HOST)


def _on(device: str, label: str, asked_bytes: int | None = None) -> FailureLocation | None:
    if device == HOST:
        return None
    return FailureLocation(device=device, labels=(label,) if label else (), asked_bytes=asked_bytes)


def located(
    error: Exception,
    run: Callable[[Watch], object],
    calls: Sequence[Sequence[str]],
    devices: Sequence[str],
) -> FailureLocation | None:
    """Where a run failed with `error`; None if it was at the host's.

    Parameters
    ----------
    run
        Runs once more with an instrument. Where that works, only the kernel's name in `error` tells, which may serve
        several sub-graphs.
    calls, devices
        As :class:`Watch` takes them.
    """
    text = str(error)
    named = tuple(dict.fromkeys(label for function, label in calls if label and function in text))
    watch = Watch(calls, devices)
    try:
        run(watch)
    except Exception:  # of the same kind, most likely; `error` is what counts
        place = watch.place
        if place is not None:
            # A lost device fails at once, wherever it was lost.
            is_known = not named or set(place.labels) & set(named)
            return place if is_known else replace(place, labels=named)
        if watch.began:
            return None
    return FailureLocation(device=next(kind for kind in devices if kind != HOST), labels=named)


def device_error(
    error: Exception, place: FailureLocation, subgraphs: Sequence[Mapping[str, Any]]
) -> DeviceError:
    """What `error` says, with the device and the sub-graph.

    Parameters
    ----------
    error
        As the device's run time raised it.
    place
        Where.
    subgraphs
        Those of the plan, as JSON data.
    """
    text = str(error)
    cause = next(
        name for name, one in CAUSES.items() if any(sign in text.lower() for sign in one.signs)
    )
    sizes = _sizes(place) if cause == MEMORY else ""
    what = (
        f"{_described(place.labels, subgraphs)} failed on {_named(place.device)}: "
        f"{CAUSES[cause].sentence}{sizes}: {_quoted(text, place.device)}"
    )
    ids = {entry["id"] for entry in subgraphs} & set(place.labels)
    subgraph = ids.pop() if len(place.labels) == len(ids) == 1 else ""
    return DeviceError(what, device=place.device, cause=cause, subgraph=subgraph)


def _described(labels: Sequence[str], subgraphs: Sequence[Mapping[str, Any]]) -> str:
    """The sub-graphs with their operators and their names in the model."""
    known = {str(entry["id"]): entry for entry in subgraphs}
    texts = []
    for label in labels:
        entry = known.get(label)
        if entry is None:
            texts.append(f"transform {label.replace('_to_', '>')}")
            continue
        names = ", ".join(map(repr, entry.get("names", ())))
        operators = ", ".join(entry["operators"])
        texts.append(f"sub-graph {label} ({operators}{': ' if names else ''}{names})")
    return " or ".join(texts) or "the model"


def _named(kind: str) -> str:
    name = _attribute(kind, _NAME)
    return f"{kind}:0" + (f" ({name})" if name else "")


def _sizes(place: FailureLocation) -> str:
    total = _attribute(place.device, _MEMORY)
    parts = [f"{place.asked_bytes / 1e6:,.1f} MB asked for"] if place.asked_bytes else []
    parts += [f"the device has {int(total) / 1e6:,.1f} MB"] if total else []
    return f" ({', '.join(parts)})" if parts else ""


def _attribute(kind: str, number: int) -> Any:
    """What a device says of itself; None if it is lost."""
    try:
        return tvm_ffi.get_global_func("runtime.GetDeviceAttr")(DEVICE_TYPES[kind], 0, number)
    except Exception:  # whatever a driver raises that has lost its device
        return None


def _quoted(text: str, kind: str) -> str:
    """A driver's message without the device, which is named already, and without the code of a kernel."""
    text = " ".join(text.partition("\nof\n")[0].split())
    if text.startswith(f"{kind}:0 (") and "): " in text:
        text = text.split("): ", 1)[1]
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."
