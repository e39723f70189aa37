"""Types of a bundle's manifest, ``bundle.json``, read and written by :mod:`layoutsel.documents`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layoutsel.core.workload import BoundaryTensor, Workload
from tvm_passes.decision import Decision

SCHEMA_VERSION = 2
"""Version of the document; readers reject any other."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument of a program."""

    shape: tuple[int, ...]
    """Dimensions."""
    dtype: str
    """Element type, as numpy spells it."""
    place: str
    """Device that holds it, as :attr:`~tvm_passes.devices.DeviceId.target_name`."""
    data: str | None
    """Values, row by row, in Base64; None for random values."""


@dataclass(frozen=True, kw_only=True)
class ProgramEntry:
    """A compiled module; the arguments of its `main` are the inputs and a tuple of weights."""

    file: str
    """Path of the shared library within the bundle."""
    inputs: tuple[Argument, ...]
    """Inputs, in order."""
    weights: tuple[Argument, ...]
    """Weights, in order."""
    devices: tuple[str, ...]
    """Names of the devices, in the module's numbering."""
    device: str
    """Name of the device that holds the inputs."""
    copies: int
    """Number of runs of the timed sub-graph in one call."""


@dataclass(frozen=True, kw_only=True)
class CandidateEntry:
    """A sub-graph under a decision, to be timed."""

    key: str
    """Key of its measurement: structural hash of the sub-graph, with that of its tuning record."""
    decision: Decision
    """Unit, layout and precision."""
    label: str
    """Name for progress messages."""
    program: ProgramEntry
    """Compiled candidate."""


@dataclass(frozen=True, kw_only=True)
class BoundaryEntry:
    """A boundary to be timed: a layout transform, a hand-over, or a copy between devices."""

    kind: str
    """``transform``, or ``crossing`` for a hand-over between units or a copy between devices."""
    source: str
    """Layout, unit or device of the producer."""
    destination: str
    """Layout, unit or device of the consumer."""
    tensor: BoundaryTensor
    """The tensor that crosses it."""
    label: str
    """Name for progress messages."""
    places: tuple[str, ...]
    """Source and destination devices of a copy; empty for other boundaries."""
    programs: tuple[ProgramEntry, ...]
    """One program for a transform, three chains for a hand-over, none for a copy."""


@dataclass(frozen=True, kw_only=True)
class Unbuilt:
    """A candidate that could not be built."""

    key: str
    """Key of its measurement."""
    decision: Decision
    """Unit, layout and precision."""
    label: str
    """Name for progress messages."""
    reason: str
    """:attr:`layoutsel.device.outcome.Failure.text`."""


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """Properties that a device needs in order to run a bundle."""

    architecture: str
    """Processor architecture, as ``uname -m`` prints it, such as ``aarch64``."""
    features: tuple[str, ...]
    """Instruction-set extensions, by their names in Linux."""
    units: tuple[str, ...]
    """Compute units."""
    devices: tuple[str, ...]
    """Devices other than the host."""
    threads: int
    """Number of threads that the code was built for."""
    versions: Mapping[str, str]
    """Package versions at compile time, by package."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Contents of ``bundle.json``."""

    schema_version: int
    """Always :data:`SCHEMA_VERSION`."""
    model: str
    """Name of the model."""
    model_hash: str
    """Content hash of the model."""
    targets: Mapping[str, str]
    """Code-generation targets as TVM's JSON, by kind of device."""
    requires: Requirements
    """Properties that the device needs."""
    reference: ProgramEntry
    """Reference kernel, whose time shows the machine's present speed."""
    candidates: tuple[CandidateEntry, ...]
    """Candidates to time."""
    boundaries: tuple[BoundaryEntry, ...]
    """Boundaries to time."""
    unbuilt: tuple[Unbuilt, ...]
    """Candidates that could not be built."""
    workloads: tuple[Workload, ...]
    """Features of the sub-graphs, for training a cost model."""
    deployed: Deployed | None
    """The whole model under a plan; None in a bundle of candidates."""


@dataclass(frozen=True, kw_only=True)
class CheckEntry:
    """Expected values and tolerance of one output."""

    output: str
    """Name of the output."""
    dtype: str
    """Element type of the expected values, as numpy spells it."""
    file: str
    """Path of the expected values within the bundle."""
    tolerance: float
    """Largest relative L2 error that passes."""
    attainable: float
    """Error that f32 arithmetic may have; see :attr:`layoutsel.device.checks.Check.attainable`."""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A compiled model with a sample and the reference's results for it."""

    file: str
    """Path of the artifact within the bundle."""
    inputs: tuple[str, ...]
    """Paths of the sample's inputs within the bundle."""
    reference: str
    """Source of the expected values: float64, or an engine."""
    checks: tuple[CheckEntry, ...]
    """Expected values of the outputs."""
