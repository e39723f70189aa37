"""Error hierarchy of the project: messages say what, where, got, expected and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


class LayoutselError(Exception):
    """Base of every error that a user can cause; the command line prints it and exits with 2."""


class UnsupportedModel(LayoutselError):
    """A model, or a part of one, that cannot be imported or partitioned."""


class ModelTooLarge(UnsupportedModel):
    """A model that needs more memory or nodes than the limits of its import allow."""


class IllegalDecision(LayoutselError):
    """A decision that its sub-graph or unit does not support, or that fits no sub-graph."""


class IllegalDevice(LayoutselError):
    """A text that names no device."""


class SubgraphError(LayoutselError):
    """An error of one sub-graph or transform on one unit.

    Parameters
    ----------
    message
        The error in one sentence.
    subgraph
        Id of the sub-graph; empty if none can be named.
    unit
        Name of the compute unit; empty if none is concerned.
    transform
        Layouts of a transform, such as ``NCHW>NHWC``; empty for a sub-graph.
    """

    def __init__(
        self, message: str, *, subgraph: str = "", unit: str = "", transform: str = ""
    ) -> None:
        super().__init__(message)
        self.subgraph = subgraph
        self.unit = unit
        self.transform = transform
        if (raised := _raised.get()) is not None:
            raised.append(self)


_raised: ContextVar[list[SubgraphError] | None] = ContextVar("raised", default=None)
"""Errors created in :func:`whole_errors`, in order."""


@contextmanager
def whole_errors() -> Iterator[None]:
    """Raise the errors of passes with all fields; TVM alone forwards only class and message."""
    raised: list[SubgraphError] = []
    token = _raised.set(raised)
    try:
        yield
    except SubgraphError as error:
        # Its cause is the error that TVM made of class and message.
        original = next(one for one in (*raised, error) if str(one) == str(error))
        raise original from original.__cause__
    finally:
        _raised.reset(token)


class BuildError(SubgraphError):
    """A unit failed to build or run a sub-graph that it had accepted."""


class UnitUnavailable(LayoutselError):
    """A compute unit that is missing on this machine."""


@dataclass(frozen=True, kw_only=True)
class Decline:
    """Reason why a decision is impossible for a sub-graph; its text also reaches `explain`."""

    subgraph: str
    """Sub-graph id, such as ``s7``."""
    operator: str
    """Operator that is the obstacle, such as ``nn.conv2d``."""
    decision: str
    """Declined decision in its text form."""
    got: str
    """Property that is not supported."""
    expected: str
    """Property that would be supported."""

    def __str__(self) -> str:
        return (
            f"sub-graph {self.subgraph} ({self.operator}) on {self.decision}: "
            f"got {self.got}; expected {self.expected}"
        )


class Declined(SubgraphError):
    """Raised by a unit's lowering if a decision is impossible; its message is the decline."""

    def __init__(self, decline: Decline | str) -> None:
        if isinstance(decline, Decline):
            unit = decline.decision.partition(":")[0]
            super().__init__(str(decline), subgraph=decline.subgraph, unit=unit)
        else:
            super().__init__(decline)


ERRORS = (
    ModelTooLarge,
    UnsupportedModel,
    IllegalDecision,
    BuildError,
    UnitUnavailable,
    Declined,
)
"""Errors of passes; registered with TVM's foreign function interface to keep their class."""
