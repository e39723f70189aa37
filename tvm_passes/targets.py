"""What code is generated for: this machine, or, within :func:`targeting`, another that is out of reach; and its threads.

Importing this does not import TVM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm.target import Target


@dataclass(frozen=True, kw_only=True)
class CrossTarget:
    """Another machine, as code generation sees it."""

    host: Target
    """Its CPU, with the number of its cores."""
    devices: Mapping[str, Target] = field(default_factory=dict)
    """Targets of its devices by :attr:`~tvm_passes.devices.DeviceId.target_name`, such as ``cuda`` or ``cuda/1``."""


_cross_target: ContextVar[CrossTarget | None] = ContextVar("layoutsel.cross_target", default=None)


def cross_target() -> CrossTarget | None:
    """The machine that code is generated for, where it is not this one."""
    return _cross_target.get()


@contextmanager
def targeting(machine: CrossTarget | None) -> Iterator[None]:
    """Generate code for `machine` within this context: its devices need not be here, and nothing can be run.

    None stands for this machine.
    """
    token = _cross_target.set(machine)
    try:
        yield
    finally:
        _cross_target.reset(token)


_threads: ContextVar[int | None] = ContextVar("layoutsel.threads", default=None)


def kernel_threads() -> int | None:
    """Threads that kernels are generated for; None if that is not said: as many as the target has cores."""
    return _threads.get()


@contextmanager
def for_threads(count: int | None) -> Iterator[None]:
    """Generate kernels for `count` threads within this context, however many cores there are."""
    token = _threads.set(count)
    try:
        yield
    finally:
        _threads.reset(token)


def absent_on_cross_target(kind: str) -> str | None:
    """Why a device of that kind of target cannot be used where code is generated for another machine; None if it can."""
    machine = cross_target()
    if machine is None or kind in machine.devices:
        return None
    return f"no target of kind {kind!r} is named for that machine"
