"""One run of a compiled model with a limit of time: it is stopped between two calls, or given up amid one.

Compiled code cannot be interrupted. The virtual machine asks an instrument around each call that it makes, which raises
once the time is up. A call that goes on beyond that is left to a thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from layoutsel.runtime.compiled import CompiledModel
from tvm_passes.errors import LayoutselError

GRACE_S = 60.0
"""Seconds that one call may go on beyond the limit of the run."""
_BUILTIN = "vm.builtin."


class TooSlow(LayoutselError):
    """A run that was stopped, or given up, because its time was up.

    Parameters
    ----------
    limit_s
        Seconds that the run had.
    at
        The sub-graph, transform or function that it was at; empty where none is known.
    goes_on
        If True, that call goes on, in a thread that nobody waits for.
    """

    def __init__(self, limit_s: float, at: str, *, goes_on: bool) -> None:
        where = f" at {at}" if at else ""
        end = f"; it did not end {GRACE_S:g} s later, and goes on" if goes_on else ""
        super().__init__(f"a run took longer than {limit_s:,.1f} s, and was{where} then{end}")
        self.limit_s = limit_s
        self.at = at
        self.goes_on = goes_on


class _Clock:
    """An instrument of the virtual machine that ends the run after a deadline, and knows what it is at."""

    def __init__(self, calls: Sequence[Sequence[str]], limit_s: float) -> None:
        self._calls = calls
        self._next = 0
        self._deadline = time.monotonic() + limit_s
        self.at = ""
        self.is_over = False

    def __call__(self, _function: Any, name: str, before: bool, _result: Any, *_args: Any) -> None:
        if name.startswith(_BUILTIN):
            return
        if not before:
            self.is_over = time.monotonic() >= self._deadline
            if self.is_over:
                raise TimeoutError
            return
        names = [function for function, _ in self._calls[self._next :]]
        label = ""
        if name in names:
            self._next += names.index(name) + 1
            label = self._calls[self._next - 1][1]
        self.at = label.replace("_to_", ">") or name


def run_within(
    model: CompiledModel, inputs: Sequence[np.ndarray], limit_s: float, grace_s: float = GRACE_S
) -> float:
    """Seconds of one run of `model` on checked `inputs`. The whole takes at most `limit_s` and `grace_s`.

    Raises
    ------
    TooSlow
        If the run takes longer than `limit_s`; names the call that it was at.
    """
    clock = _Clock(model.header.get("calls", ()), limit_s)
    call = model.instrumented_call(inputs, clock)
    run = _Run(call)
    thread = threading.Thread(target=run, name="layoutsel trial", daemon=True)
    thread.start()
    thread.join(limit_s + grace_s)
    if thread.is_alive():
        raise TooSlow(limit_s, clock.at, goes_on=True)
    if clock.is_over:
        raise TooSlow(limit_s, clock.at, goes_on=False)
    if run.error is not None:
        raise run.error
    return run.seconds


class _Run:
    """A call, and what came of it."""

    def __init__(self, call: Callable[[], float]) -> None:
        self._call = call
        self.seconds = 0.0
        self.error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self.seconds = self._call() / 1e6
        except BaseException as error:
            self.error = error
