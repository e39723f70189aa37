"""Limits of a build in this process, checked before each pass of TVM.

A pass that has begun, and LLVM's own code generation, are not interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tvm
from tvm.ir.instrument import pass_instrument

from layoutsel.compile.memory import resident_bytes
from layoutsel.device.forked import CopyFailed, Limits
from layoutsel.device.outcome import Failure, FailureKind
from tvm_passes.instruments import instrumented


class _Check:
    """Instrument of TVM that ends a build at its limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._deadline = time.monotonic() + limits.time_s
        self._most_bytes = resident_bytes() + limits.memory_bytes
        self.failure: Failure | None = None

    def run_before_pass(self, _module: tvm.IRModule, info: Any) -> None:
        """Keep the reason and raise an error if time or memory exceeds its limit."""
        if time.monotonic() > self._deadline:
            reason = f"it took longer than {self._limits.time_s:.3g} s"
            self.failure = Failure(kind=FailureKind.TIMEOUT, reason=reason)
        elif resident_bytes() > self._most_bytes:
            room = f"{self._limits.memory_bytes / 1e6:,.0f} MB"
            reason = f"it took more than {room} of memory"
            self.failure = Failure(kind=FailureKind.ENVIRONMENT, reason=reason)
        if self.failure is not None:
            raise RuntimeError(f"{self.failure.reason}, before the pass {info.name}")


@contextmanager
def checked(limits: Limits) -> Iterator[None]:
    """Check `limits` before each pass within the context.

    Raises
    ------
    CopyFailed
        If a limit was exceeded, as by a copy of this process.
    """
    check = pass_instrument(_Check)(limits)
    try:
        with instrumented(check):
            yield
    except Exception as error:
        # TVM changes the class of errors that instruments raise.
        if check.failure is None:
            raise
        raise CopyFailed(check.failure) from error
