"""Machine and number of threads for which code is generated.

The machine is this one or, in the context of :func:`targeting`, another one that is out of reach.
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
    """Another machine as a target of code generation."""

    host: Target
    """CPU, with the number of its cores."""
    devices: Mapping[str, Target] = field(default_factory=dict)
    """Targets of its devices by :attr:`~tvm_passes.devices.DeviceId.target_name`, such as
    ``cuda/1``.
    """


_cross_target: ContextVar[CrossTarget | None] = ContextVar("layoutsel.cross_target", default=None)


def cross_target() -> CrossTarget | None:
    """Return the machine for which code is generated; None for this one."""
    return _cross_target.get()


@contextmanager
def targeting(machine: CrossTarget | None) -> Iterator[None]:
    """Generate code for `machine` in this context; its devices need not be here.

    Nothing can run on them. None denotes this machine.
    """
    token = _cross_target.set(machine)
    try:
        yield
    finally:
        _cross_target.reset(token)


_threads: ContextVar[int | None] = ContextVar("layoutsel.threads", default=None)


def kernel_threads() -> int | None:
    """Return the threads for which kernels are generated; None for the target's number of cores."""
    return _threads.get()


@contextmanager
def for_threads(count: int | None) -> Iterator[None]:
    """Generate kernels for `count` threads in this context, regardless of the number of cores."""
    token = _threads.set(count)
    try:
        yield
    finally:
        _threads.reset(token)


def absent_on_cross_target(kind: str) -> str | None:
    """Return the reason why another machine has no device of this kind, or None.

    None as well if code is generated for this machine.
    """
    machine = cross_target()
    if machine is None or kind in machine.devices:
        return None
    return f"no target of kind {kind!r} is named for that machine"
