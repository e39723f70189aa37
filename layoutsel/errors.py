"""Errors that users see; the command line prints them without a traceback."""

from __future__ import annotations

from tvm_passes.devices import DeviceId
from tvm_passes.errors import (
    BuildError,
    Decline,
    Declined,
    IllegalDecision,
    LayoutselError,
    ModelTooLarge,
    UnitUnavailable,
    UnsupportedModel,
)

__all__ = [
    "BuildError",
    "Cancelled",
    "ControlFlow",
    "DeadlineMissed",
    "Decline",
    "Declined",
    "DeviceError",
    "ForkedError",
    "IllegalDecision",
    "ImporterFault",
    "InputError",
    "InvalidModel",
    "InvalidShape",
    "LayoutselError",
    "ModelTooLarge",
    "NoBatches",
    "RunTimeout",
    "UnitUnavailable",
    "UnsupportedModel",
    "WorkerClosed",
]


class InvalidModel(LayoutselError):
    """A model file that cannot be read: missing, truncated, corrupt, or not ONNX."""


class ControlFlow(UnsupportedModel):
    """A model with a branch or a loop that is decided at run time."""


class InvalidShape(LayoutselError):
    """An input shape that is missing, or that does not fit the model."""


class InputError(LayoutselError):
    """An input with the wrong name, shape, element type or index values for the model."""


class NoBatches(LayoutselError):
    """A network that cannot take several samples at once."""


class ForkedError(LayoutselError):
    """A model or device that a forked process inherited and cannot use."""


class Cancelled(LayoutselError):
    """A run of a stage that its cancel token stopped or prevented."""


class RunTimeout(LayoutselError):
    """A run that exceeded its worker's time limit, or waited for such a run."""


class DeadlineMissed(RunTimeout):
    """A request without any result at its deadline."""


class WorkerClosed(LayoutselError):
    """A run that a closed worker received, or that waited when the worker closed."""


class ImporterFault(Exception):
    """A bug of the importer; changing the model is not the remedy."""


class DeviceError(LayoutselError):
    """A failed device: out of memory, lost, or unable to build a kernel.

    Parameters
    ----------
    what
        The sub-graph, the device and its driver's message, in one sentence.
    device
        The device.
    cause
        Key of :data:`layoutsel.device.device_errors.CAUSES`.
    subgraph
        Id of the sub-graph that failed; empty if unknown.
    """

    def __init__(
        self, what: str, *, device: DeviceId, cause: str = "other", subgraph: str = ""
    ) -> None:
        super().__init__(f"{what}. Compile with --fallback cpu to go on without the device")
        self.what = what
        self.device = device
        self.cause = cause
        self.subgraph = subgraph
