"""What comes back from a device: ``results.json``, with whatever is needed to keep it at home."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from layoutsel import documents
from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.device.checks import Check
from layoutsel.device.machine import Machine
from layoutsel.device.outcome import Failure, Outcome, Timing
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

SCHEMA_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class _Result:
    timing: Timing | None
    failure: str | None
    """:attr:`layoutsel.device.outcome.Failure.text`."""

    def __post_init__(self) -> None:
        if (self.timing is None) == (self.failure is None):
            raise LayoutselError("a result has either a timing or a failure")

    @property
    def outcome(self) -> Outcome:
        """What is kept of it."""
        return self.timing or Failure.parse(self.failure or "")


@dataclass(frozen=True, kw_only=True)
class CandidateResult(_Result):
    """What a candidate took; one of both is None."""

    key: str
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class BoundaryResult(_Result):
    """What a boundary took; one of both is None."""

    kind: str
    source: str
    destination: str
    tensor: BoundaryTensor


@dataclass(frozen=True, kw_only=True)
class DeviceFound:
    """A device with a memory of its own."""

    identity: str
    target: str
    """What its code was generated for, as TVM's JSON."""
    compute_units: int
    clock_mhz: float


@dataclass(frozen=True, kw_only=True)
class MachineFound:
    """The machine, and what its memory gives."""

    described: Machine
    gflops: float
    """f32 GFLOP/s that the reference kernel attains."""
    memory_gbps: float
    """GB/s that all threads together read from memory."""
    cache_gbps: float
    """The same from the caches of their cores."""
    devices: Mapping[str, DeviceFound]
    """By :attr:`~tvm_passes.devices.DeviceId.target_name`."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One output compared on the device."""

    output: str
    rel_l2_err: float | None
    """None if it is no number."""
    tolerance: float
    attainable: float
    """See :attr:`layoutsel.device.checks.Check.attainable`."""
    reference: str

    @property
    def check(self) -> Check:
        """The same as at home."""
        return Check(
            output=self.output,
            rel_l2_err=math.inf if self.rel_l2_err is None else self.rel_l2_err,
            tolerance=self.tolerance,
            reference=self.reference,
            attainable=self.attainable,
        )


@dataclass(frozen=True, kw_only=True)
class DeployedResult:
    """A whole model, checked and timed."""

    timing: Timing
    checks: tuple[CheckResult, ...]


@dataclass(frozen=True, kw_only=True)
class Results:
    """The whole document."""

    schema_version: int
    bundle: str
    """SHA-256 of the bundle's manifest."""
    model: str
    machine: MachineFound
    threads: int
    versions: Mapping[str, str]
    """What was in use where the bundle was compiled."""
    complete: bool
    """True if everything in the bundle was tried."""
    workloads: tuple[Workload, ...]
    candidates: tuple[CandidateResult, ...]
    boundaries: tuple[BoundaryResult, ...]
    deployed: DeployedResult | None


def load(file: Path) -> Results:
    """Read results.

    Raises
    ------
    LayoutselError
        If the file is none of ours, damaged or of another version.
    """
    document = documents.load_json(file)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(document, dict) or "bundle" not in document:
        raise LayoutselError(f"{file}: not results; expected what layoutsel-measure wrote")
    if version != SCHEMA_VERSION:
        raise LayoutselError(
            f"{file}: results of version {version}; expected {SCHEMA_VERSION}: measure with the same layoutsel"
        )
    try:
        return documents.from_json(Results, document, file=str(file))
    except documents.DocumentError:
        raise
    except LayoutselError as error:
        raise LayoutselError(f"{file}: damaged: {error}") from error
