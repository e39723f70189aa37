"""What was measured, with what is needed to learn from it: workload, decision, machine and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layoutsel import documents
from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.cost import old_machines
from layoutsel.cost.device_peaks import DevicePeaks
from layoutsel.cost.links import Link, missing_links
from layoutsel.cost.peaks import MachinePeaks
from layoutsel.cost.tensor import Tensor
from layoutsel.device.machine import Machine
from tvm_passes.decision import Decision, SubgraphId, parse_placed_unit
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import LayoutselError

_NOISE = 0.05
"""Relative spread at which a sample counts half as much as a quiet one."""


@dataclass(frozen=True, kw_only=True)
class MachineProfile:
    """A machine with what was measured, or is documented, of it and its devices."""

    machine: Machine
    peaks: MachinePeaks
    devices: Mapping[str, DevicePeaks] = field(default_factory=dict)
    """Devices with a memory of their own, by :attr:`~tvm_passes.devices.DeviceId.target_name`."""
    links: tuple[Link, ...] = ()
    """Links between the memories of the host and the devices, in both directions; between devices if they have any."""

    def __post_init__(self) -> None:
        known = {HOST_DEVICE, *map(DeviceId.named, self.devices)}
        for link in self.links:
            if not {link.source, link.destination} <= known:
                raise LayoutselError(f"link {link}: got a device that the machine does not have")
        for source, destination in missing_links(sorted(known - {HOST_DEVICE}), self.links):
            raise LayoutselError(
                f"the machine has no link from {source} to {destination}: expected links in both directions "
                f"between the host and each device"
            )

    @classmethod
    def read(cls, value: Any, *, file: str = "document") -> MachineProfile:
        """Read what JSON has of a profile; ``devices``, what may be None of them, and ``links`` may be absent.

        Older files have the link to the host as fields of each device.

        Raises
        ------
        LayoutselError
            At the first thing that does not fit.
        """
        if isinstance(value, dict):
            value = old_machines.upgraded({"devices": {}, "links": [], **value}, file)
        try:
            return documents.from_json(cls, value, file=file)
        except documents.DocumentError:
            raise
        except LayoutselError as error:
            raise LayoutselError(f"{file}: {error}") from error

    @classmethod
    def load(cls, file: Path) -> MachineProfile:
        """Read a machine's file; errors as of :meth:`read`."""
        return cls.read(documents.load_json(file), file=str(file))

    def device(self, device: DeviceId) -> DevicePeaks | None:
        """Peaks of a device with a memory of its own; None for others."""
        return self.devices.get(device.target_name)

    @property
    def threads(self) -> int:
        """Threads that compute."""
        return self.peaks.threads

    @property
    def lanes(self) -> int:
        """Floats in a vector register."""
        isa = self.machine.isa
        return 16 if "avx512f" in isa else 8 if "avx" in isa else 4

    @property
    def name(self) -> str:
        """For people and for splits, such as ``186802e58109baf5/2``."""
        return f"{self.machine.fingerprint}/{self.threads}"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a measurement comes from."""

    profile: MachineProfile
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    """ISO 8601, UTC; empty where unknown."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measured candidate. `workload.hints` has at most the decision's own entry."""

    workload: Workload
    decision: Decision
    us: float
    spread_us: float
    runs: int
    provenance: Provenance

    @property
    def weight(self) -> float:
        """Between 0 and 1: the wider the spread, the noisier the machine was, the less it counts."""
        return noise_weight(self.us, self.spread_us)


@dataclass(frozen=True, kw_only=True)
class BoundarySample:
    """One measured transform or crossing."""

    kind: str
    """``transform`` or ``crossing``."""
    source: str
    destination: str
    tensor: BoundaryTensor
    us: float
    spread_us: float
    runs: int
    provenance: Provenance

    @property
    def weight(self) -> float:
        """As of :attr:`Sample.weight`."""
        return noise_weight(self.us, self.spread_us)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A candidate of a recorded model, not priced."""

    decision: Decision
    in_layouts: tuple[str, ...]
    out_layouts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RecordedNode:
    """A sub-graph of a recorded model."""

    id: SubgraphId
    key: str
    """Of its workload."""
    offers: tuple[Offer, ...]


@dataclass(frozen=True, kw_only=True)
class RecordedModel:
    """A model's sub-graphs and tensors: with costs, a planning problem."""

    name: str
    machine: str
    """:attr:`MachineProfile.name` of the machine whose candidates these are."""
    nodes: tuple[RecordedNode, ...]
    tensors: tuple[Tensor, ...]

    @property
    def keys(self) -> frozenset[str]:
        """Workloads that occur in it."""
        return frozenset(node.key for node in self.nodes)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Everything that a cost model is trained and judged on."""

    samples: tuple[Sample, ...] = ()
    boundaries: tuple[BoundarySample, ...] = ()
    models: tuple[RecordedModel, ...] = ()

    def __add__(self, other: Dataset) -> Dataset:
        return Dataset(
            samples=self.samples + other.samples,
            boundaries=self.boundaries + other.boundaries,
            models=self.models + other.models,
        )


@dataclass(frozen=True, kw_only=True)
class SkippedPart:
    """Part of a log that could not be read."""

    file: str
    reason: str
    count: int


def quietest(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Of several measurements of one candidate on one machine, the one whose times scatter least, in order."""
    best: dict[tuple[str, Decision, str], Sample] = {}
    for sample in samples:
        key = (sample.workload.key, sample.decision, sample.provenance.profile.name)
        if key not in best or sample.weight > best[key].weight:
            best[key] = sample
    return tuple(best.values())


def noise_weight(us: float, spread_us: float) -> float:
    """1 for a quiet sample, less for a noisy one, by :data:`_NOISE`."""
    relative = spread_us / us if us > 0 else 1.0
    return 1.0 / (1.0 + (relative / _NOISE) ** 2)


def joins_device(profile: MachineProfile, *placed_units: str) -> bool:
    """True if any of some placed units has a memory of its own on a machine."""
    devices = (parse_placed_unit(unit)[1] for unit in placed_units)
    return any(profile.device(device) is not None for device in devices)
