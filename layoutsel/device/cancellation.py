"""Tokens that cancel runs between two sub-graphs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tvm_ffi

from layoutsel.device.threads import shares_openmp
from layoutsel.device.virtual_machine import synchronise
from layoutsel.errors import Cancelled
from tvm_passes.devices import DEVICE_TYPES, DeviceId
from tvm_passes.onednn.plugin import function

tvm_ffi.register_error("Cancelled", Cancelled)

_BUILTIN = "vm.builtin."
"""Start of the names of the virtual machine's own functions, which are not sub-graphs."""
_APART = 8
"""Integers on either side of a token's state: no other thread writes to its cache line."""
_IS_CANCELLED, _BEGUN, _MOST = range(_APART, _APART + 3)
"""Positions of a token's state: cancelled or not, sub-graphs begun, their maximum or -1."""


@dataclass(frozen=True, kw_only=True)
class InFlight:
    """Limit of the work in a device's queue, so that a cancelled run stops soon.

    A device accepts whole models within microseconds, and cannot be stopped in its queue.
    """

    device: DeviceId
    """Device."""
    most: int
    """Largest number of sub-graphs and layout transforms in its queue, at least 1."""


class CancelToken:
    """A cancel switch for queued and active runs.

    An active run finishes its current sub-graph and ends before the next. A token stays cancelled.

    Parameters
    ----------
    after
        Number of sub-graphs and layout transforms after which the token cancels itself; None for
        no limit.
    """

    def __init__(self, after: int | None = None) -> None:
        # The plugin reads and writes this state during a run: see cmake/onednn/cancellation.h.
        self._state = (ctypes.c_int64 * (2 * _APART + 3))()
        self._state[_MOST] = -1 if after is None else after

    def cancel(self) -> None:
        """Cancel the runs; returns at once, and is safe from any thread."""
        self._state[_IS_CANCELLED] = 1

    @property
    def cancelled(self) -> bool:
        """True after cancellation."""
        return bool(self._state[_IS_CANCELLED])

    @property
    def begun(self) -> int:
        """Number of sub-graphs and layout transforms that its runs have begun."""
        return int(self._state[_BEGUN])

    def check(self) -> None:
        """Raise :class:`Cancelled` if the token is cancelled."""
        if self.cancelled:
            raise Cancelled(f"the run was cancelled after {self.begun} sub-graphs")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Apply the token to the calling thread's runs on a machine with :func:`instrument`."""
        if not shares_openmp():
            yield
            return
        start = ctypes.addressof(self._state) + _APART * ctypes.sizeof(ctypes.c_int64)
        function("layoutsel.watch")(start)
        try:
            yield
        finally:
            function("layoutsel.watch")(0)

    def begin(self) -> None:
        """Count the next sub-graph, or raise :class:`Cancelled` instead."""
        if 0 <= self._state[_MOST] <= self.begun:
            self.cancel()
        self.check()
        self._state[_BEGUN] += 1


def instrument(
    token: Callable[[], CancelToken], in_flight: InFlight | None = None
) -> Callable[..., None]:
    """Make an instrument that lets tokens cancel the runs of a virtual machine.

    The plugin's native instrument also checks the token between the steps of a partition. Without
    the plugin there are no partitions.

    Parameters
    ----------
    token
        Returns the token of the current run.
    in_flight
        Limit of the work in a device's queue. It holds for the calling thread, which has to run the
        machine, until the next call of this function.
    """
    if shares_openmp():
        _bound_natively(in_flight)
        return native_instrument()
    begun = 0

    def check(_function: Any, name: str, before: bool, *_rest: Any) -> None:
        nonlocal begun
        if not before or name.startswith(_BUILTIN):
            return
        if in_flight is not None and begun >= in_flight.most:
            synchronise([in_flight.device])
            begun = 0
        begun += 1
        token().begin()

    return check


def _bound_natively(in_flight: InFlight | None) -> None:
    """Set the limit of the calling thread for the plugin's instrument."""
    bound = function("layoutsel.bound_in_flight")
    if in_flight is None:
        bound(0, 0, 0)
    else:
        device = in_flight.device
        bound(DEVICE_TYPES[device.target_kind], device.index, in_flight.most)


def native_instrument() -> Callable[..., None]:
    """Make the plugin's instrument, which obeys the token that watches the calling thread."""
    native: Callable[..., None] = function("layoutsel.cancelling_instrument")()
    return native
