"""Every error that layoutsel raises for a user to read; the command line prints it without a trace."""

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
    "RunTimeout",
    "UnitUnavailable",
    "UnsupportedModel",
    "WorkerClosed",
]


class InvalidModel(LayoutselError):
    """A model file that cannot be read: missing, truncated, corrupt, or not ONNX."""


class InvalidShape(LayoutselError):
    """An input shape that is missing, or that does not fit the model."""


class InputError(LayoutselError):
    """An input whose name, shape, element type or indices are not what the model takes."""


class ForkedError(LayoutselError):
    """A model, or a device, that a forked process cannot use any more."""


class Cancelled(LayoutselError):
    """A run of a stage that its cancel token stopped, or kept from beginning."""


class RunTimeout(LayoutselError):
    """A run of a stage that took longer than its worker allows, or that waited for such a run."""


class WorkerClosed(LayoutselError):
    """A run that was given to a worker after its end, or too late before it."""


class ImporterFault(Exception):
    """A fault of the importer itself, which no change of the model has to mend."""


class DeviceError(LayoutselError):
    """A device that failed at work: out of memory, lost, or with kernels that its driver does not build.

    Parameters
    ----------
    what
        The sub-graph, the device, and what it says, in one sentence.
    device
        The device.
    cause
        Name of the entry of :data:`layoutsel.device.device_errors.CAUSES`.
    subgraph
        Id of the sub-graph that it failed at; empty where none can be named.
    """

    def __init__(
        self, what: str, *, device: DeviceId, cause: str = "other", subgraph: str = ""
    ) -> None:
        super().__init__(f"{what}. Compile with --fallback cpu to go on without the device")
        self.what = what
        self.device = device
        self.cause = cause
        self.subgraph = subgraph
