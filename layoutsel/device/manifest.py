"""What a bundle says of itself: ``bundle.json``, read and written by :mod:`layoutsel.documents`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layoutsel.core.workload import BoundaryTensor, Workload
from tvm_passes.decision import Decision

SCHEMA_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Argument:
    """What a program is called with."""

    shape: tuple[int, ...]
    dtype: str
    place: str
    """Device that it lies on; see :attr:`~tvm_passes.devices.DeviceId.target_name`."""
    data: str | None
    """Its values, row by row, in Base64; None if random ones will do."""


@dataclass(frozen=True, kw_only=True)
class ProgramEntry:
    """A compiled module, whose `main` takes inputs and behind them a tuple of weights."""

    file: str
    """The shared library, within the bundle."""
    inputs: tuple[Argument, ...]
    weights: tuple[Argument, ...]
    devices: tuple[str, ...]
    """Devices that its virtual machine needs, in that order, named as places are."""
    device: str
    """Device that the inputs lie on."""
    copies: int
    """How often one call runs what is timed."""


@dataclass(frozen=True, kw_only=True)
class CandidateEntry:
    """A sub-graph under a decision."""

    key: str
    """What its measurement is kept under: the sub-graph's structural hash, with its tuning record's."""
    decision: Decision
    label: str
    program: ProgramEntry


@dataclass(frozen=True, kw_only=True)
class BoundaryEntry:
    """A transform, or a crossing: chains of tiny sub-graphs, or a copy from one memory to another."""

    kind: str
    source: str
    destination: str
    tensor: BoundaryTensor
    label: str
    places: tuple[str, ...]
    """Of a copy, devices where it begins and ends; none of another boundary."""
    programs: tuple[ProgramEntry, ...]


@dataclass(frozen=True, kw_only=True)
class Unbuilt:
    """A candidate that could not be built, and why."""

    key: str
    decision: Decision
    label: str
    reason: str
    """:attr:`layoutsel.device.outcome.Failure.text`."""


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a device needs in order to run a bundle."""

    architecture: str
    """As ``uname -m`` has it, such as ``aarch64``."""
    features: tuple[str, ...]
    """Instruction sets, as the kernel names them."""
    units: tuple[str, ...]
    devices: tuple[str, ...]
    """Devices other than the host."""
    threads: int
    versions: Mapping[str, str]
    """What was in use where it was compiled."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``bundle.json``."""

    schema_version: int
    model: str
    model_hash: str
    targets: Mapping[str, str]
    """Targets that code was generated for, as JSON, by kind."""
    requires: Requirements
    reference: ProgramEntry
    """The kernel that tells how fast the machine is at the moment."""
    candidates: tuple[CandidateEntry, ...]
    boundaries: tuple[BoundaryEntry, ...]
    unbuilt: tuple[Unbuilt, ...]
    workloads: tuple[Workload, ...]
    deployed: Deployed | None
    """The whole model, by a plan."""


@dataclass(frozen=True, kw_only=True)
class CheckEntry:
    """An output to compare, with what it may be off by."""

    output: str
    dtype: str
    file: str
    """The reference's values, within the bundle."""
    tolerance: float
    """Relative L2 error that it may have."""
    attainable: float
    """See :attr:`layoutsel.device.checks.Check.attainable`."""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A model with a sample and what the reference makes of it."""

    file: str
    """The artifact, within the bundle."""
    inputs: tuple[str, ...]
    """Files of the sample's inputs."""
    reference: str
    """Source of the values that results are compared with: float64, or an engine."""
    checks: tuple[CheckEntry, ...]
