"""What a measurement comes to. Imports nothing but errors: it is made where nothing else is installed, too."""

from __future__ import annotations

import math
import signal
import subprocess
from dataclasses import dataclass
from enum import Enum

from tvm_passes.errors import LayoutselError


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A measured time."""

    us: float
    """Microseconds of one run."""
    spread_us: float
    """Half the distance between the quartiles, and what a busy machine adds, microseconds."""
    runs: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.us) and self.us >= 0 and self.spread_us >= 0):
            raise LayoutselError(f"not a time: {self}")


class FailureKind(str, Enum):
    """The cause of a failure, as far as it can be told."""

    DECLINED = "declined"
    """Our own code refused the candidate."""
    BUILD = "build"
    """Building or running it raised an exception."""
    CRASH = "crash"
    """Its process ended by an exit or a signal of its own code, such as SIGSEGV."""
    TIMEOUT = "timeout"
    """It ran longer than allowed; a busy machine can cause that."""
    KILLED = "killed"
    """Another process or the kernel ended it, for instance because memory ran out."""
    ENVIRONMENT = "environment"
    """The machine lacked something: memory, disk space, a file, a package."""


_REPRODUCIBLE = frozenset({FailureKind.DECLINED, FailureKind.BUILD, FailureKind.CRASH})

_KIND_OF_TYPE: tuple[tuple[tuple[type[BaseException], ...], FailureKind], ...] = (
    ((TimeoutError, subprocess.TimeoutExpired), FailureKind.TIMEOUT),
    ((OSError, MemoryError, ImportError), FailureKind.ENVIRONMENT),
)
"""Exceptions that tell of the machine, not of the candidate; the first match holds."""

_KIND_OF_SIGNAL = {
    **dict.fromkeys(
        ("SIGSEGV", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS"), FailureKind.CRASH
    ),
    "SIGBUS": FailureKind.ENVIRONMENT,  # a mapped file that has no room on a full disk
}
"""Signals that a process causes itself; all others come from outside."""

_SHORTAGES = (
    *("bad_alloc", "out of memory", "out_of_memory", "out of host memory", "out_of_host_memory"),
    *("cannot allocate memory", "no space left on device", "disk quota exceeded"),
    "too many open files",
)
"""Messages of libraries that tell of a shortage by text alone."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The reason why there is no time: the candidate crashed, hung or refused, or something disturbed it."""

    kind: FailureKind
    reason: str

    @property
    def is_reproducible(self) -> bool:
        """True if the same candidate fails again, so that the failure is worth keeping."""
        return self.kind in _REPRODUCIBLE

    @property
    def text(self) -> str:
        """Kind and reason as they are kept in files; :meth:`parse` reads it."""
        return f"{self.kind.value}: {self.reason}"

    @classmethod
    def parse(cls, text: str) -> Failure:
        """Read :attr:`text`; files of older versions hold the reason alone, which then tells the kind."""
        kind, colon, reason = text.partition(": ")
        if colon and kind in _KINDS:
            return cls(kind=FailureKind(kind), reason=reason)
        return cls(kind=_kind_of_old(text), reason=text)

    @classmethod
    def of_exception(cls, error: BaseException, reason: str) -> Failure:
        """Classify an exception by the types and messages of it and of its causes."""
        cause: BaseException | None = error
        while cause is not None:
            for types, kind in _KIND_OF_TYPE:
                if isinstance(cause, types):
                    return cls(kind=kind, reason=reason)
            if _tells_of_shortage(str(cause)):
                return cls(kind=FailureKind.ENVIRONMENT, reason=reason)
            cause = cause.__cause__
        is_ours = isinstance(error, LayoutselError)
        return cls(kind=FailureKind.DECLINED if is_ours else FailureKind.BUILD, reason=reason)

    @classmethod
    def of_exit(cls, code: int, last_words: str) -> Failure:
        """Classify the end of a process by its exit code, negative for a signal, and by its output."""
        how, kind = f"exited with {code}", FailureKind.CRASH if code else FailureKind.ENVIRONMENT
        if code < 0:
            name = signal_name(-code)
            how, kind = f"was killed by {name}", _KIND_OF_SIGNAL.get(name, FailureKind.KILLED)
        if kind is FailureKind.CRASH and _tells_of_shortage(last_words):
            kind = FailureKind.ENVIRONMENT
        told = f"; it last wrote: {last_words}" if last_words else ""
        return cls(kind=kind, reason=f"the process {how}{told}")


def signal_name(number: int) -> str:
    """Name of a signal, such as ``SIGKILL``; its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_KINDS = frozenset(kind.value for kind in FailureKind)
_KILLED = "the process was killed by "


def _kind_of_old(reason: str) -> FailureKind:
    """Kind of a failure that was written without one."""
    if reason.startswith("ran longer than "):
        return FailureKind.TIMEOUT
    if _tells_of_shortage(reason):
        return FailureKind.ENVIRONMENT
    if reason.startswith(_KILLED):
        name = reason.removeprefix(_KILLED).partition(";")[0]
        return _KIND_OF_SIGNAL.get(name, FailureKind.KILLED)
    return FailureKind.BUILD


def _tells_of_shortage(text: str) -> bool:
    lowered = text.lower()
    return any(phrase in lowered for phrase in _SHORTAGES)


Outcome = Timing | Failure
