"""One run of a compiled model with a time limit.

Compiled code cannot be interrupted. The virtual machine calls an instrument around each of its
calls, which raises after the limit. A call that continues beyond that is abandoned in its thread.
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
"""Longest wait for a call that exceeds the run's limit, seconds."""
_BUILTIN = "vm.builtin."
"""Start of the names of the virtual machine's own functions."""


class TooSlow(LayoutselError):
    """A run was stopped or abandoned after its time limit.

    Parameters
    ----------
    limit_s
        Time limit of the run, seconds.
    at
        Sub-graph, transform or function that ran at the limit; empty if unknown.
    goes_on
        True if that call still runs in an abandoned thread.
    """

    def __init__(self, limit_s: float, at: str, *, goes_on: bool) -> None:
        where = f" at {at}" if at else ""
        end = f"; it still runs {GRACE_S:g} s later" if goes_on else ""
        super().__init__(f"a run took longer than {limit_s:,.1f} s{where}{end}")
        self.limit_s = limit_s
        self.at = at
        self.goes_on = goes_on


class _Clock:
    """Instrument of the virtual machine that ends a run after a deadline and records its call."""

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
    """Run a model once within a time limit and return the seconds.

    Parameters
    ----------
    model
        Model to run.
    inputs
        Checked inputs.
    limit_s
        Time limit of the run, seconds.
    grace_s
        Further wait for a call that cannot be interrupted, seconds.

    Raises
    ------
    TooSlow
        If the run exceeds `limit_s`; names the call at that time.
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
    """A call that stores its result or its error."""

    def __init__(self, call: Callable[[], float]) -> None:
        self._call = call
        self.seconds = 0.0
        self.error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self.seconds = self._call() / 1e6
        except BaseException as error:
            self.error = error
