"""Types of a device's results, ``results.json``, with everything needed to import them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from layoutsel import documents
from layoutsel.core.file_versions import expected_version
from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.device.checks import Check
from layoutsel.device.machine import Machine
from layoutsel.device.outcome import Failure, Outcome, Timing
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

SCHEMA_VERSION = 2
"""Version of the document; readers reject any other."""
_RENEW = "Measure again with 'layoutsel-measure BUNDLE -o FILE'"
"""Advice on results that are too old to be read."""


@dataclass(frozen=True, kw_only=True)
class _Result:
    """Fields that all results share; either the timing or the failure is None."""

    timing: Timing | None
    """Time of one run; None after a failure."""
    failure: str | None
    """:attr:`layoutsel.device.outcome.Failure.text`; None after a success."""

    def __post_init__(self) -> None:
        if (self.timing is None) == (self.failure is None):
            raise LayoutselError("a result has either a timing or a failure")

    @property
    def outcome(self) -> Outcome:
        """The timing, or the parsed failure."""
        return self.timing or Failure.parse(self.failure or "")


@dataclass(frozen=True, kw_only=True)
class CandidateResult(_Result):
    """Measured time of a candidate, or the failure of its measurement."""

    key: str
    """Key of its measurement; see :attr:`layoutsel.device.manifest.CandidateEntry.key`."""
    decision: Decision
    """Unit, layout and precision."""


@dataclass(frozen=True, kw_only=True)
class BoundaryResult(_Result):
    """Measured time of a :class:`~layoutsel.device.manifest.BoundaryEntry`, or its failure."""

    kind: str
    """``transform``, or ``crossing`` for a hand-over between units or a copy between devices."""
    source: str
    """Layout, unit or device of the producer."""
    destination: str
    """Layout, unit or device of the consumer."""
    tensor: BoundaryTensor
    """The tensor that crosses it."""


@dataclass(frozen=True, kw_only=True)
class DeviceFound:
    """A device with its own memory, as found on the machine."""

    identity: str
    """Hardware and driver, on which measurements depend."""
    target: str
    """Code-generation target, as TVM's JSON."""
    compute_units: int
    """Number of compute units (streaming multiprocessors)."""
    clock_mhz: float
    """Clock rate, MHz."""


@dataclass(frozen=True, kw_only=True)
class MachineFound:
    """Description and peak rates of the machine."""

    described: Machine
    """Properties of the machine."""
    gflops: float
    """f32 rate of the reference kernel, GFLOP/s."""
    memory_gbps: float
    """Memory bandwidth of all threads together, GB/s."""
    cache_gbps: float
    """Cache bandwidth of all threads together, GB/s."""
    devices: Mapping[str, DeviceFound]
    """Devices other than the host, by :attr:`~tvm_passes.devices.DeviceId.target_name`."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Comparison of one output on the device."""

    output: str
    """Name of the output."""
    rel_l2_err: float | None
    """Relative L2 error; None if it is not finite."""
    tolerance: float
    """Largest error that passes."""
    attainable: float
    """Error that f32 arithmetic may have; see :attr:`layoutsel.device.checks.Check.attainable`."""
    reference: str
    """Source of the expected values."""

    @property
    def check(self) -> Check:
        """Equivalent check, with an infinite error in place of None."""
        return Check(
            output=self.output,
            rel_l2_err=math.inf if self.rel_l2_err is None else self.rel_l2_err,
            tolerance=self.tolerance,
            reference=self.reference,
            attainable=self.attainable,
        )


@dataclass(frozen=True, kw_only=True)
class DeployedResult:
    """Checks and time of a whole model."""

    timing: Timing
    """Time of one inference."""
    checks: tuple[CheckResult, ...]
    """Comparisons of the outputs."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Contents of ``results.json``."""

    schema_version: int
    """Always :data:`SCHEMA_VERSION`."""
    bundle: str
    """SHA-256 of the bundle's manifest."""
    model: str
    """Name of the model."""
    machine: MachineFound
    """The machine that measured."""
    threads: int
    """Number of threads."""
    versions: Mapping[str, str]
    """Package versions when the bundle was compiled, by package."""
    complete: bool
    """True if everything in the bundle was measured."""
    workloads: tuple[Workload, ...]
    """Features of the sub-graphs, for training a cost model."""
    candidates: tuple[CandidateResult, ...]
    """Results of the candidates."""
    boundaries: tuple[BoundaryResult, ...]
    """Results of the boundaries."""
    deployed: DeployedResult | None
    """Result of the whole model; None if the bundle has none, or it was not run yet."""


def load(file: Path) -> Results:
    """Read a file of results.

    Raises
    ------
    LayoutselError
        If the file is not a file of results, damaged, or of another version.
    """
    document = documents.load_json(file)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(document, dict) or "bundle" not in document:
        raise LayoutselError(f"{file}: not results; expected a file that layoutsel-measure wrote")
    if type(version) is int and version != SCHEMA_VERSION:
        expected = expected_version(version, (SCHEMA_VERSION,), _RENEW)
        raise LayoutselError(f"{file}: got results of version {version}; expected {expected}")
    try:
        return documents.from_json(Results, document, file=str(file))
    except documents.DocumentError:
        raise
    except LayoutselError as error:
        raise LayoutselError(f"{file}: damaged: {error}") from error
