"""Errors of devices, explained in one sentence: sub-graph, device and the driver's message."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tvm_ffi

from layoutsel.device.virtual_machine import synchronise
from layoutsel.errors import DeviceError
from tvm_passes.devices import DEVICE_TYPES, HOST, HOST_DEVICE, DeviceId, ask_driver

MEMORY, BUILD, LOST, OTHER = "memory", "build", "lost", "other"
"""Names of the causes."""

_NAME, _MEMORY = 5, 14
"""TVM's numbers of the device attributes name and memory size."""
_QUOTED = 600
"""Maximum length of a quoted driver message, characters; the exception's cause holds the full
text."""
_KINDS = {number: kind for kind, number in DEVICE_TYPES.items()}
"""Kind of device by its DLPack type."""


@dataclass(frozen=True)
class Cause:
    """One cause of device failures."""

    sentence: str
    """Explanation for the user."""
    signs: tuple[str, ...]
    """Lower-case fragments of driver messages that reveal the cause."""


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
"""Causes by name; the first one with a sign in the message applies."""


def check_not_forked(devices: Sequence[DeviceId]) -> None:
    """Reject devices that were in use before this process was forked.

    Raises :class:`DeviceError`.
    """
    for device in devices:
        if not device.is_host and (reason := ask_driver(device.kind)):
            what = f"device {device.target_name!r}: {reason}"
            raise DeviceError(what, device=device, cause=LOST)


@dataclass(frozen=True, kw_only=True)
class FailureLocation:
    """Place of a failure within a run."""

    device: DeviceId
    labels: tuple[str, ...] = ()
    """The failed sub-graph or transform; several if any of these may be the one."""
    asked_bytes: int | None = None
    """Requested memory, bytes; None if the failed call was no allocation."""


class Watch:
    """An instrument of the virtual machine that records the call in progress.

    Parameters
    ----------
    calls
        Calls of `main`, in order: function name, and the sub-graph or transform that it computes.
    devices
        Devices, in the machine's numbering.
    """

    def __init__(self, calls: Sequence[Sequence[str]], devices: Sequence[DeviceId]) -> None:
        self._calls = calls
        self._devices = devices
        self._next = 0
        self._last: dict[DeviceId, str] = {}
        self.began = False
        """True after the first call."""
        self.place: FailureLocation | None = None
        """Location of the device call in progress; None outside such calls."""

    def __call__(self, _function: Any, name: str, before: bool, _result: Any, *args: Any) -> None:
        """Record a call; the machine calls this before and after each function."""
        if before:
            self.began = True
            self.place = _BUILTINS.get(name, Watch._kernel)(self, name, args)
        elif self.place is not None:
            # Devices work asynchronously: wait, so that an error is raised within its own call.
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
        device = _id_of(tensors[-1].device) if tensors else HOST_DEVICE
        self._last[device] = label
        return _on(device, label)

    def _storage(self, _name: str, args: Sequence[Any]) -> FailureLocation | None:
        _machine, shape, number, *_ = args
        device = self._devices[number] if number < len(self._devices) else HOST_DEVICE
        return _on(device, self._coming(), asked_bytes=math.prod(shape))

    def _copy(self, _name: str, args: Sequence[Any]) -> FailureLocation | None:
        tensor, destination, index, *_ = args
        device = DeviceId.of_target(_KINDS[destination], index)
        if not device.is_host:
            return _on(device, self._coming())
        source = _id_of(tensor.device)
        return _on(source, self._last.get(source, ""))

    def _reshape(self, _name: str, _args: Sequence[Any]) -> None:
        # TVM replaces some kernels by this function.
        if self._next < len(self._calls) and "reshape" in self._calls[self._next][0]:
            self._next += 1

    def _coming(self) -> str:
        """Label of the next kernel, for which TVM allocates and copies just before it."""
        return self._calls[self._next][1] if self._next < len(self._calls) else ""


_BUILTINS: Mapping[str, Callable[[Watch, str, Sequence[Any]], FailureLocation | None]] = {
    "vm.builtin.alloc_storage": Watch._storage,
    "vm.builtin.to_device": Watch._copy,
    "vm.builtin.reshape": Watch._reshape,
}


def _id_of(device: Any) -> DeviceId:
    kind = _KINDS.get(device.dlpack_device_type())
    return HOST_DEVICE if kind in (None, HOST) else DeviceId.of_target(kind, device.index)


def _on(device: DeviceId, label: str, asked_bytes: int | None = None) -> FailureLocation | None:
    if device.is_host:
        return None
    return FailureLocation(device=device, labels=(label,) if label else (), asked_bytes=asked_bytes)


def located(
    error: Exception,
    run: Callable[[Watch], object],
    calls: Sequence[Sequence[str]],
    devices: Sequence[DeviceId],
) -> FailureLocation | None:
    """Location of a failure, found by a second run; None if the host failed.

    Parameters
    ----------
    error
        Exception of the first run.
    run
        Runs the model again with an instrument. If this run succeeds, the kernel name in `error`
        decides, which several sub-graphs may share.
    calls, devices
        As for :class:`Watch`.
    """
    text = str(error)
    named = tuple(dict.fromkeys(label for function, label in calls if label and function in text))
    watch = Watch(calls, devices)
    try:
        run(watch)
    except Exception:  # most likely the same failure; `error` is the one to report
        place = watch.place
        if place is not None:
            # A lost device fails at its next call, wherever it was lost.
            is_known = not named or set(place.labels) & set(named)
            return place if is_known else replace(place, labels=named)
        if watch.began:
            return None
    return FailureLocation(device=next(one for one in devices if not one.is_host), labels=named)


def device_error(
    error: Exception, place: FailureLocation, subgraphs: Sequence[Mapping[str, Any]]
) -> DeviceError:
    """Make the user's error from a driver's error.

    Parameters
    ----------
    error
        Exception of the device's runtime.
    place
        Location of the failure.
    subgraphs
        Sub-graphs of the plan, as JSON data.
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
    """Text for the sub-graphs, with their operators and their names in the model."""
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


def _named(device: DeviceId) -> str:
    """Name of a device in its driver's messages."""
    name = _attribute(device, _NAME)
    return f"{device.kind}:{device.index}" + (f" ({name})" if name else "")


def _sizes(place: FailureLocation) -> str:
    total = _attribute(place.device, _MEMORY)
    parts = [f"{place.asked_bytes / 1e6:,.1f} MB requested"] if place.asked_bytes else []
    parts += [f"the device has {int(total) / 1e6:,.1f} MB"] if total else []
    return f" ({', '.join(parts)})" if parts else ""


def _attribute(device: DeviceId, number: int) -> Any:
    """Attribute of a device; None if the device is lost."""
    try:
        kind, index = DEVICE_TYPES[device.target_kind], device.index
        return tvm_ffi.get_global_func("runtime.GetDeviceAttr")(kind, index, number)
    except Exception:  # a driver without its device may raise anything
        return None


def _quoted(text: str, device: DeviceId) -> str:
    """Shortened driver message without the device, which is named already, or kernel code."""
    text = " ".join(text.partition("\nof\n")[0].split())
    if text.startswith(f"{device.kind}:{device.index} (") and "): " in text:
        text = text.split("): ", 1)[1]
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."
