"""A token that stops runs between two sub-graphs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tvm_ffi

from layoutsel.device.threads import shares_openmp
from layoutsel.errors import Cancelled
from tvm_passes.onednn.plugin import function

tvm_ffi.register_error("Cancelled", Cancelled)

_BUILTIN = "vm.builtin."
_IS_CANCELLED, _BEGUN, _MOST = range(3)


class CancelToken:
    """Stops the runs that it is given to, queued ones and running ones.

    A running one ends before its next sub-graph: what has begun is finished. A token stays cancelled.

    Parameters
    ----------
    after
        Number of sub-graphs, layout transforms among them, after which the token cancels itself; None for no limit.
    """

    def __init__(self, after: int | None = None) -> None:
        # The plugin reads and writes these while a run goes on: see cmake/onednn/cancellation.h.
        self._state = (ctypes.c_int64 * 3)(0, 0, -1 if after is None else after)

    def cancel(self) -> None:
        """Stop the runs; safe from any thread, and does not wait for their end."""
        self._state[_IS_CANCELLED] = 1

    @property
    def cancelled(self) -> bool:
        """True once it is cancelled."""
        return bool(self._state[_IS_CANCELLED])

    @property
    def begun(self) -> int:
        """Number of sub-graphs, layout transforms among them, that its runs have begun."""
        return int(self._state[_BEGUN])

    def check(self) -> None:
        """Raise :class:`Cancelled` where it is cancelled."""
        if self.cancelled:
            raise Cancelled(f"the run was cancelled after {self.begun} sub-graphs")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let the token stop what the calling thread runs within, on a machine that has :func:`instrument`."""
        if not shares_openmp():
            yield
            return
        function("layoutsel.watch")(ctypes.addressof(self._state))
        try:
            yield
        finally:
            function("layoutsel.watch")(0)

    def begin(self) -> None:
        """Count a sub-graph that is about to begin; raises :class:`Cancelled` in its place."""
        if 0 <= self._state[_MOST] <= self.begun:
            self.cancel()
        self.check()
        self._state[_BEGUN] += 1


def instrument(token: Callable[[], CancelToken]) -> Callable[..., None]:
    """An instrument for a virtual machine whose runs tokens may stop.

    The plugin has a native one, which also looks between the steps of a partition; without it there are no partitions.

    Parameters
    ----------
    token
        Gives the token of the run that goes on.
    """
    if shares_openmp():
        native: Callable[..., None] = function("layoutsel.cancelling_instrument")()
        return native

    def check(_function: Any, name: str, before: bool, *_rest: Any) -> None:
        if before and not name.startswith(_BUILTIN):
            token().begin()

    return check
