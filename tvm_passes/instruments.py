"""Instruments of TVM that hold in nested pass contexts as well, where TVM drops them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import tvm
from tvm.ir.instrument import PassInstrument

_nested: ContextVar[tuple[PassInstrument, ...]] = ContextVar("nested", default=())


@contextmanager
def instrumented(instrument: PassInstrument) -> Iterator[None]:
    """Call `instrument` for all passes within the context.

    It must not depend on the beginning and end of a pass context, as it sees those of nested ones.
    """
    current = tvm.transform.PassContext.current()
    token = _nested.set((*_nested.get(), instrument))
    try:
        with tvm.transform.PassContext(
            opt_level=current.opt_level,
            disabled_pass=current.disabled_pass,
            instruments=[*current.instruments, instrument],
            config=current.config,
        ):
            yield
    finally:
        _nested.reset(token)


def nested_instruments() -> tuple[PassInstrument, ...]:
    """Return the instruments that a nested pass context must have."""
    return _nested.get()
