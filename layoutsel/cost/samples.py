"""Measured samples with their training context: workload, decision, machine and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layoutsel import documents
from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.cost import old_machines
from layoutsel.cost.conditions import Conditions
from layoutsel.cost.device_peaks import DevicePeaks
from layoutsel.cost.links import DeviceLink, missing_links
from layoutsel.cost.peaks import MachinePeaks
from layoutsel.cost.tensor import Tensor
from layoutsel.device.machine import Machine
from layoutsel.documents.saved import SavedDocument
from tvm_passes.decision import Decision, SubgraphId, parse_placed_unit
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import LayoutselError

_NOISE = 0.05
"""Relative spread at which a sample has half the weight of a noise-free one."""


@dataclass(frozen=True, kw_only=True)
class MachineProfile(SavedDocument):
    """A machine with the measured or documented peaks of the host and its devices."""

    machine: Machine
    """Description of the host."""
    peaks: MachinePeaks
    """Peaks of the host."""
    devices: Mapping[str, DevicePeaks] = field(default_factory=dict)
    """Peaks of devices with their own memory, by target name.

    See :attr:`~tvm_passes.devices.DeviceId.target_name`.
    """
    links: tuple[DeviceLink, ...] = ()
    """Links between the memories of the host and the devices, in both directions.

    Devices may have links between each other as well.
    """

    def __post_init__(self) -> None:
        known = {HOST_DEVICE, *map(DeviceId.named, self.devices)}
        for link in self.links:
            if not {link.source, link.destination} <= known:
                raise LayoutselError(f"link {link}: got a device that the machine does not have")
        for source, destination in missing_links(sorted(known - {HOST_DEVICE}), self.links):
            raise LayoutselError(
                f"the machine has no link from {source} to {destination}: "
                f"expected links in both directions between the host and each device"
            )

    def save(self, file: Path | str) -> None:
        """Write a machine's file; raises :class:`WriteError` if it cannot be written."""
        version = {"schema_version": old_machines.VERSION}
        documents.save({**version, **documents.to_json(self)}, file)

    @classmethod
    def read(cls, document: Any, *, file: str = "document") -> MachineProfile:
        """Read a profile from JSON.

        The fields ``devices`` and ``links``, and those of a device that may be None, are optional.
        In older files, each device has its link to the host as fields.

        Raises
        ------
        LayoutselError
            If the JSON does not fit; the message names the first such field.
        """
        if isinstance(document, dict):
            document = old_machines.upgraded({"devices": {}, "links": [], **document}, file)
        try:
            return super().read(document, file=file)
        except documents.DocumentError:
            raise
        except LayoutselError as error:
            raise LayoutselError(f"{file}: {error}") from error

    def device(self, device: DeviceId) -> DevicePeaks | None:
        """Return the peaks of a device with its own memory; None for other devices."""
        return self.devices.get(device.target_name)

    @property
    def threads(self) -> int:
        """Number of threads that compute."""
        return self.peaks.threads

    @property
    def lanes(self) -> int:
        """Number of floats in a vector register."""
        isa = self.machine.isa
        return 16 if "avx512f" in isa else 8 if "avx" in isa else 4

    @property
    def name(self) -> str:
        """Name for reports and for splits of training data, such as ``186802e58109baf5/2``."""
        return f"{self.machine.fingerprint}/{self.threads}"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Origin of a measurement."""

    profile: MachineProfile
    """Machine of the measurement."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions that the measurement depends on; see :mod:`layoutsel.cost.scopes`."""
    date: str = ""
    """Date of the measurement, ISO 8601 in UTC; empty if unknown."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measured candidate."""

    workload: Workload
    """Features of the sub-graph; its hints hold at most the entry of `decision`."""
    decision: Decision
    """Decision of the candidate."""
    us: float
    """Time of one run, microseconds."""
    spread_us: float
    """Uncertainty of the measured time, microseconds."""
    runs: int
    """Number of timed runs."""
    provenance: Provenance
    """Origin of the measurement."""

    @property
    def weight(self) -> float:
        """Weight in training, 0 to 1: a wide spread shows a noisy machine and counts less."""
        return noise_weight(self.us, self.spread_us)


@dataclass(frozen=True, kw_only=True)
class BoundarySample:
    """One measured step of a boundary."""

    kind: str
    """``transform`` or ``crossing``."""
    source: str
    """Layout or placed unit of the producer."""
    destination: str
    """Layout or placed unit of the consumer."""
    tensor: BoundaryTensor
    """Tensor that passes the boundary."""
    us: float
    """Time of one run, microseconds."""
    spread_us: float
    """Uncertainty of the measured time, microseconds."""
    runs: int
    """Number of timed runs."""
    provenance: Provenance
    """Origin of the measurement."""

    @property
    def weight(self) -> float:
        """Weight in training; see :attr:`Sample.weight`."""
        return noise_weight(self.us, self.spread_us)


@dataclass(frozen=True, kw_only=True)
class LoadSample:
    """One candidate that was measured under a load, in turns with an idle machine."""

    model: str
    """Name of the model with the sub-graph."""
    workload: Workload
    """Features of the sub-graph, without hints."""
    decision: Decision
    """Decision of the candidate."""
    conditions: Conditions
    """Threads, cores and load."""
    us: float
    """Mean time of one run under the load, microseconds."""
    spread_us: float
    """Deviation of that mean between turns, microseconds."""
    idle_us: float
    """Mean time of one run without load, microseconds."""
    runs: int
    """Number of timed runs under the load."""
    provenance: Provenance
    """Origin of the measurement."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A candidate of a recorded model, without a price."""

    decision: Decision
    """Decision of the candidate."""
    in_layouts: tuple[str, ...]
    """Layouts in which the candidate takes its activations, in order."""
    out_layouts: tuple[str, ...]
    """Layouts in which the candidate leaves its results, in order."""


@dataclass(frozen=True, kw_only=True)
class RecordedNode:
    """A sub-graph of a recorded model."""

    id: SubgraphId
    """Identifier of the sub-graph."""
    key: str
    """Structural hash of the sub-graph's workload."""
    offers: tuple[Offer, ...]
    """Candidates of the sub-graph."""


@dataclass(frozen=True, kw_only=True)
class RecordedModel:
    """Sub-graphs and tensors of a model; costs turn them into a planning problem."""

    name: str
    """Name of the model."""
    machine: str
    """:attr:`MachineProfile.name` of the machine of the candidates."""
    nodes: tuple[RecordedNode, ...]
    """Sub-graphs in order of execution."""
    tensors: tuple[Tensor, ...]
    """Tensors between the sub-graphs."""

    @property
    def keys(self) -> frozenset[str]:
        """Structural hashes of the workloads in the model."""
        return frozenset(node.key for node in self.nodes)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Training and evaluation data of cost models."""

    samples: tuple[Sample, ...] = ()
    """Measured candidates."""
    boundaries: tuple[BoundarySample, ...] = ()
    """Measured steps of boundaries."""
    loaded: tuple[LoadSample, ...] = ()
    """Candidates measured under load."""
    models: tuple[RecordedModel, ...] = ()
    """Models whose sub-graphs the samples belong to."""

    def __add__(self, other: Dataset) -> Dataset:
        return Dataset(
            samples=self.samples + other.samples,
            boundaries=self.boundaries + other.boundaries,
            loaded=self.loaded + other.loaded,
            models=self.models + other.models,
        )


@dataclass(frozen=True, kw_only=True)
class SkippedPart:
    """Part of a log that could not be read."""

    file: str
    """Path of the log."""
    reason: str
    """Reason why it could not be read."""
    count: int
    """Number of parts with this reason."""


def quietest(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Choose the least noisy of several measurements of one candidate on one machine, in order."""
    best: dict[tuple[str, Decision, str], Sample] = {}
    for sample in samples:
        key = (sample.workload.key, sample.decision, sample.provenance.profile.name)
        if key not in best or sample.weight > best[key].weight:
            best[key] = sample
    return tuple(best.values())


def noise_weight(us: float, spread_us: float) -> float:
    """Compute the weight of a sample: 1 without noise, 1/2 at the relative spread :data:`_NOISE`.

    Parameters
    ----------
    us
        Measured time, microseconds.
    spread_us
        Half the interquartile range of the time, microseconds.
    """
    relative = spread_us / us if us > 0 else 1.0
    return 1.0 / (1.0 + (relative / _NOISE) ** 2)


def joins_device(profile: MachineProfile, *placed_units: str) -> bool:
    """True if one of the placed units has its own memory on the machine."""
    devices = (parse_placed_unit(unit)[1] for unit in placed_units)
    return any(profile.device(device) is not None for device in devices)
