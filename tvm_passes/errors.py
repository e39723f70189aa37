"""The project's error hierarchy: every message says what, where, got, expected and what to do."""

from __future__ import annotations

from dataclasses import dataclass


class LayoutselError(Exception):
    """Base of every error that a user can cause; the command line prints it and exits with 2."""


class UnsupportedModel(LayoutselError):
    """A model, or a part of one, that cannot be imported or partitioned."""


class IllegalDecision(LayoutselError):
    """A decision that its sub-graph or unit cannot honour, or that fits no sub-graph."""


class BuildError(LayoutselError):
    """A unit failed to build or run a sub-graph that it had accepted."""


class UnitUnavailable(LayoutselError):
    """A compute unit that is missing on this machine."""


@dataclass(frozen=True, kw_only=True)
class Decline:
    """Why a decision is not possible for a sub-graph; the same sentence reaches `explain`."""

    subgraph: str
    """Sub-graph id, such as ``s7``."""
    operator: str
    """The operator that is the obstacle, such as ``nn.conv2d``."""
    decision: str
    """The declined decision, as :meth:`Decision.__str__` writes it."""
    got: str
    expected: str

    def __str__(self) -> str:
        return (
            f"sub-graph {self.subgraph} ({self.operator}) on {self.decision}: "
            f"got {self.got}; expected {self.expected}"
        )


class Declined(LayoutselError):
    """Raised by a unit's lowering when a decision is not possible; its message is the decline."""

    def __init__(self, decline: Decline | str) -> None:
        super().__init__(str(decline))


ERRORS = (UnsupportedModel, IllegalDecision, BuildError, UnitUnavailable, Declined)
"""What passes raise; registered with TVM's foreign function interface, to cross it as what they are."""
