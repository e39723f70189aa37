"""Results of measurements: a time, or a failure. Needs nothing but layoutsel's errors."""

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
    """Time of one run, microseconds."""
    spread_us: float
    """Half the interquartile range, plus the uncertainty from a busy machine, microseconds."""
    runs: int
    """Number of timed runs."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.us) and self.us >= 0 and self.spread_us >= 0):
            raise LayoutselError(f"not a time: {self}")


class FailureKind(str, Enum):
    """Cause of a failure, as far as it is known."""

    DECLINED = "declined"
    """layoutsel rejected the candidate."""
    BUILD = "build"
    """Building or running the candidate raised an exception."""
    CRASH = "crash"
    """The process ended by an exit or a signal of the candidate's code, such as SIGSEGV."""
    TIMEOUT = "timeout"
    """The candidate exceeded its time limit; a busy machine can cause that."""
    KILLED = "killed"
    """Another process or the kernel killed the process, for instance to free memory."""
    ENVIRONMENT = "environment"
    """The machine lacked memory, disk space, a file or a package."""


_REPRODUCIBLE = frozenset({FailureKind.DECLINED, FailureKind.BUILD, FailureKind.CRASH})
"""Failures that the candidate itself causes."""

_KIND_OF_TYPE: tuple[tuple[tuple[type[BaseException], ...], FailureKind], ...] = (
    ((TimeoutError, subprocess.TimeoutExpired), FailureKind.TIMEOUT),
    ((OSError, MemoryError, ImportError), FailureKind.ENVIRONMENT),
)
"""Failure kinds of exceptions about the machine, not the candidate; the first match applies."""

_KIND_OF_SIGNAL = {
    **dict.fromkeys(
        ("SIGSEGV", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS"), FailureKind.CRASH
    ),
    "SIGBUS": FailureKind.ENVIRONMENT,  # a mapped file on a full disk
}
"""Failure kinds of signals that a process causes itself; other signals come from outside."""

_SHORTAGES = (
    *("bad_alloc", "out of memory", "out_of_memory", "out of host memory", "out_of_host_memory"),
    *("cannot allocate memory", "no space left on device", "disk quota exceeded"),
    "too many open files",
)
"""Fragments of library messages about a shortage of memory, disk space or files."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failed measurement: the candidate crashed, hung or declined, or was disturbed."""

    kind: FailureKind
    """Cause of the failure."""
    reason: str
    """Explanation for the user."""

    @property
    def is_reproducible(self) -> bool:
        """True if the same candidate is expected to fail again; such failures are kept."""
        return self.kind in _REPRODUCIBLE

    @property
    def text(self) -> str:
        """Kind and reason as stored in files; :meth:`parse` is the inverse."""
        return f"{self.kind.value}: {self.reason}"

    @classmethod
    def parse(cls, text: str) -> Failure:
        """Read :attr:`text`; in files of older versions, the kind is derived from the reason."""
        kind, colon, reason = text.partition(": ")
        if colon and kind in _KINDS:
            return cls(kind=FailureKind(kind), reason=reason)
        return cls(kind=_kind_of_old(text), reason=text)

    @classmethod
    def of_exception(cls, error: BaseException, reason: str) -> Failure:
        """Classify an exception by the types and messages of itself and its causes."""
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
    def of_exit(cls, code: int, output: str) -> Failure:
        """Classify the end of a process.

        Parameters
        ----------
        code
            Exit code; negative for a signal.
        output
            End of the process's output.
        """
        how, kind = f"exited with {code}", FailureKind.CRASH if code else FailureKind.ENVIRONMENT
        if code < 0:
            name = signal_name(-code)
            how, kind = f"was killed by {name}", _KIND_OF_SIGNAL.get(name, FailureKind.KILLED)
        if kind is FailureKind.CRASH and _tells_of_shortage(output):
            kind = FailureKind.ENVIRONMENT
        told = f"; it last wrote: {output}" if output else ""
        return cls(kind=kind, reason=f"the process {how}{told}")


def signal_name(number: int) -> str:
    """Name of a signal, such as ``SIGKILL``; its number if it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_KINDS = frozenset(kind.value for kind in FailureKind)
"""Names of all kinds of failures."""
_KILLED = "the process was killed by "
"""Start of the reason of a signal, in files of older versions as well."""


def _kind_of_old(reason: str) -> FailureKind:
    """Kind of a failure that an older version stored without one."""
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
"""Result of one measurement."""
