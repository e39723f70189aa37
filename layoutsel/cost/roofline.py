"""The roofline: what a sub-graph costs a unit by its work alone. This is also the complexity score.

Williams, Waterman, Patterson, "Roofline" (CACM 52(4), 2009), with a launch overhead and with weights that come from
memory every run while activations may stay in cache::

    time = launch + max(FLOPs / attained FLOP/s, weight bytes / memory B/s + activation bytes / attained B/s)
           + 2 * repacked bytes / attained B/s

Weights that are computed at run time are activations; a unit that brings them into another form first says so in its
hints, and writes and reads them once more before it computes.

Units on devices have the ceilings of theirs, on which few results leave compute units idle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from layoutsel.core.precision import relative_bytes
from layoutsel.core.workload import (
    REPACKED,
    BoundaryTensor,
    Cost,
    Estimate,
    Infeasible,
    Workload,
)
from layoutsel.cost.conditions import Conditions
from layoutsel.cost.device_peaks import DevicePeaks
from layoutsel.cost.links import Links
from layoutsel.cost.model import TRANSFORM, BoundaryPart, CostModel, Question, under
from layoutsel.cost.peaks import MachinePeaks
from tvm_passes.algorithms import algorithm_of
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.efficiency import MODERATE, Efficiency
from tvm_passes.layouts import LAYOUTS
from tvm_passes.precisions import PRECISIONS

if TYPE_CHECKING:
    from layoutsel.cost.samples import MachineProfile

ANY = "*"
"""Any layout, or any unit."""

_UNSEEN = 1.0
"""Relative uncertainty of an efficiency that nobody measured."""


_BY_UNIT: Mapping[tuple[str, str], Efficiency] = MappingProxyType(
    {
        ("cpu", ANY): Efficiency(compute=0.25, bandwidth=0.6),
        # Assumed, as no GPU has been measured. In TVM's schedules of products, and of convolutions as products, a work-item
        # reads 8 floats of shared memory for 16 multiply-adds: NVIDIA's SMs, with 32 and 128 a cycle, then attain half at most.
        ("opencl", ANY): Efficiency(compute=0.3, bandwidth=0.6, spread=_UNSEEN),
        ("cuda", ANY): Efficiency(compute=0.3, bandwidth=0.6, spread=_UNSEEN),
        (ANY, ANY): Efficiency(compute=0.3, bandwidth=0.5),
    }
)
"""By (unit, layout), of layouts that state none of their own."""


def all_efficiencies() -> Mapping[tuple[str, str], Efficiency]:
    """Efficiencies by (unit, layout); the most specific entry holds.

    Those of layouts are of convolutions of ResNet-50 on two Sapphire Rapids cores (FACTS.md): of oneDNN by one layer
    alone, of the CPU under TVM's schedules.
    """
    by_layout = {
        (unit, layout.name): found
        for layout in LAYOUTS.values()
        for unit, found in layout.efficiencies.items()
    }
    return {**_BY_UNIT, **by_layout}


Ceilings = MachinePeaks | DevicePeaks
"""Of the host, or of a device."""


def complexity_score(
    workload: Workload, decision: Decision, peaks: Ceilings, efficiency: Efficiency
) -> float:
    """Microseconds by the roofline; the formula is in the module's docstring."""
    gflops = _rate(workload, decision, peaks) * efficiency.compute
    stored = relative_bytes(decision.precision)
    activation_gbps = _attained_gbps(stored * workload.activation_bytes, peaks)
    compute_us = workload.flops / gflops * 1e-3
    memory_us = workload.weight_bytes / peaks.memory_gbps + (
        workload.activation_bytes / activation_gbps
    )
    traffic_us = stored * memory_us / efficiency.bandwidth * 1e-3
    again = 2 * workload.hints_of(decision).get(REPACKED, 0.0)
    repacking_us = again / _attained_gbps(again, peaks) / efficiency.bandwidth * 1e-3
    return peaks.launch_us * efficiency.launches + max(compute_us, traffic_us) + repacking_us


def _attained_gbps(nbytes: float, peaks: Ceilings) -> float:
    """Bandwidth of what a unit has just written, or is going to: the cache's where it fits."""
    return peaks.cache_gbps if nbytes <= peaks.cache_bytes else peaks.memory_gbps


def _rate(workload: Workload, decision: Decision, peaks: Ceilings) -> float:
    """GFLOP/s at best."""
    if isinstance(peaks, DevicePeaks):
        return peaks.rate(workload, decision)
    algorithm = algorithm_of(decision.algorithm)
    if not algorithm.is_default:
        return peaks.gflops * algorithm.speedup
    precision = PRECISIONS.get(decision.precision)
    return peaks.gflops * (precision.speedup if precision else 1.0)


@dataclass(frozen=True)
class RooflineCost(CostModel):
    """A cost model that measures nothing but the machine."""

    peaks: MachinePeaks
    efficiencies: Mapping[tuple[str, str], Efficiency] = field(default_factory=all_efficiencies)
    devices: Mapping[str, DevicePeaks] = field(default_factory=dict)
    """By :attr:`~tvm_passes.devices.DeviceId.target_name`."""
    links: Links = field(default_factory=Links)
    """Links between the memories of the host and the devices."""

    @classmethod
    def of(cls, profile: MachineProfile) -> RooflineCost:
        """The roofline of a machine and its devices."""
        links = Links.of(profile.links)
        return cls(peaks=profile.peaks, devices=profile.devices, links=links)

    def efficiency(self, decision: Decision) -> Efficiency:
        """Pick the most specific entry for the decision's unit and layout."""
        for key in ((decision.unit, decision.layout), (decision.unit, ANY)):
            if key in self.efficiencies:
                return self.efficiencies[key]
        return self.efficiencies[ANY, ANY]

    @property
    def conditions(self) -> Conditions:
        """The state of the machine in which its peaks were measured."""
        return Conditions(threads=self.peaks.threads)

    def subgraphs(self, questions: Sequence[Question]) -> list[Cost | Infeasible]:
        """Complexity score of each sub-graph."""
        known = self.conditions
        return [
            under(self.estimate(q.workload, q.decision), q.conditions, known) for q in questions
        ]

    def estimate(self, workload: Workload, decision: Decision) -> Cost:
        """Complexity score of a sub-graph under the conditions of the peaks; always feasible."""
        spread = self.efficiency(decision).spread
        return workload.cost(_estimate(self.time_us(workload, decision), spread), decision)

    def time_us(self, workload: Workload, decision: Decision) -> float:
        """Complexity score of a sub-graph, microseconds."""
        ceilings = self.devices.get(decision.device.target_name, self.peaks)
        return complexity_score(workload, decision, ceilings, self.efficiency(decision))

    def steps(self, steps: Sequence[BoundaryPart]) -> list[Cost]:
        """Time of the bytes that each step of a boundary moves."""
        known = self.conditions
        return [
            under(step.tensor.cost(_estimate(self.step_us(step))), step.conditions, known)
            for step in steps
        ]

    def step_us(self, step: BoundaryPart) -> float:
        """Time of one step of a boundary, microseconds."""
        if step.kind == TRANSFORM:
            return self._transform_us(step.tensor)
        return self._crossing_us(step.tensor, step.source, step.destination)

    def _transform_us(self, tensor: BoundaryTensor) -> float:
        """One read and one write of the tensor, at half the bandwidth that plain reading attains."""
        gbps = _attained_gbps(2 * tensor.bytes, self.peaks)
        return 2 * tensor.bytes / (0.5 * gbps) * 1e-3 + self.peaks.launch_us

    def _crossing_us(self, tensor: BoundaryTensor, source: str, destination: str) -> float:
        """A copy over the links between two devices; else a launch: one CPU's units pass by reference."""
        here, there = parse_placed_unit(source)[1], parse_placed_unit(destination)[1]
        copy_us = self.links.copy_us(here, there, tensor.bytes)
        return self.peaks.launch_us if copy_us is None else copy_us


def _estimate(us: float, spread: float = MODERATE) -> Estimate:
    return Estimate(us, spread * us, "roofline")
