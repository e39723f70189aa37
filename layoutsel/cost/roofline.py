"""The roofline model: the cost of a sub-graph from its work alone, also called complexity score.

Williams, Waterman, Patterson, "Roofline" (CACM 52(4), 2009), with two additions: a launch overhead,
and weights that come from memory in each run while activations may stay in cache::

    time = launch + max(FLOPs / attained FLOP/s,
                        weight bytes / memory B/s + activation bytes / attained B/s)
           + 2 * repacked bytes / attained B/s

Weights that are computed at run time count as activations. A unit that repacks them first states
that in its hints; it writes and reads them once more before it computes.

Units on devices use the ceilings of their device; few results leave its compute units idle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.efficiency import MODERATE, Efficiency
from tvm_passes.layouts import LAYOUTS
from tvm_passes.precisions import PRECISIONS

if TYPE_CHECKING:
    from layoutsel.cost.samples import MachineProfile

ANY = "*"
"""Any layout, or any unit, as part of a key of efficiencies."""

_DEFAULT = Efficiency(compute=0.3, bandwidth=0.5, spread=1.0)
"""Assumed efficiency of units that state none, and of unknown ones."""


def all_efficiencies() -> Mapping[tuple[str, str], Efficiency]:
    """List all efficiencies by (unit, layout); the most specific key applies.

    Units and layouts state them. Those of layouts come from ResNet-50's convolutions on two
    Sapphire Rapids cores: for oneDNN from single layers, for the CPU under TVM's schedules.
    """
    by_layout = {
        (unit, layout.name): found
        for layout in LAYOUTS.values()
        for unit, found in layout.efficiencies.items()
    }
    by_unit = {
        (unit, ANY): backend.efficiency for unit, backend in BACKENDS.items() if backend.efficiency
    }
    return {(ANY, ANY): _DEFAULT, **by_unit, **by_layout}


Ceilings = MachinePeaks | DevicePeaks
"""Roofline ceilings of the host or of a device."""


def complexity_score(
    workload: Workload, decision: Decision, peaks: Ceilings, efficiency: Efficiency
) -> float:
    """Compute the roofline's time in microseconds; see the formula of this module."""
    compute_us, traffic_us = _compute_and_traffic_us(workload, decision, peaks, efficiency)
    again = 2 * workload.hints_of(decision).get(REPACKED, 0.0)
    repacking_us = again / _attained_gbps(again, peaks) / efficiency.bandwidth * 1e-3
    return peaks.launch_us * efficiency.launches + max(compute_us, traffic_us) + repacking_us


def _compute_and_traffic_us(
    workload: Workload, decision: Decision, peaks: Ceilings, efficiency: Efficiency
) -> tuple[float, float]:
    """Compute the times of arithmetic alone and of moving tensors alone, microseconds."""
    gflops = _rate(workload, decision, peaks) * efficiency.compute
    stored = relative_bytes(decision.precision)
    activation_gbps = _attained_gbps(stored * workload.activation_bytes, peaks)
    compute_us = workload.flops / gflops * 1e-3
    memory_us = workload.weight_bytes / peaks.memory_gbps + (
        workload.activation_bytes / activation_gbps
    )
    return compute_us, stored * memory_us / efficiency.bandwidth * 1e-3


def _attained_gbps(nbytes: float, peaks: Ceilings) -> float:
    """Return the bandwidth, GB/s, for data just written or read soon: the cache's if they fit."""
    return peaks.cache_gbps if nbytes <= peaks.cache_bytes else peaks.memory_gbps


def _rate(workload: Workload, decision: Decision, peaks: Ceilings) -> float:
    """Return the peak rate for a decision, GFLOP/s."""
    if isinstance(peaks, DevicePeaks):
        return peaks.rate(workload, decision)
    algorithm = algorithm_of(decision.algorithm)
    if not algorithm.is_default:
        return peaks.gflops * algorithm.speedup
    precision = PRECISIONS.get(decision.precision)
    return peaks.gflops * (precision.speedup if precision else 1.0)


@dataclass(frozen=True)
class RooflineCost(CostModel):
    """Cost model of the complexity score: it needs only the peaks of the machine."""

    peaks: MachinePeaks
    """Peaks of the host."""
    efficiencies: Mapping[tuple[str, str], Efficiency] = field(default_factory=all_efficiencies)
    """Efficiencies by (unit, layout); see :func:`all_efficiencies`."""
    devices: Mapping[str, DevicePeaks] = field(default_factory=dict)
    """Peaks of devices, by :attr:`~tvm_passes.devices.DeviceId.target_name`."""
    links: Links = field(default_factory=Links)
    """Links between the memories of the host and the devices."""

    @classmethod
    def of(cls, profile: MachineProfile) -> RooflineCost:
        """Make the roofline of a machine and its devices."""
        links = Links.of(profile.links)
        return cls(peaks=profile.peaks, devices=profile.devices, links=links)

    def efficiency(self, decision: Decision) -> Efficiency:
        """Return the most specific entry for the decision's unit and layout."""
        for key in ((decision.unit, decision.layout), (decision.unit, ANY)):
            if key in self.efficiencies:
                return self.efficiencies[key]
        return self.efficiencies[ANY, ANY]

    @property
    def conditions(self) -> Conditions:
        """State of the machine during the measurement of its peaks."""
        return Conditions(threads=self.peaks.threads)

    def subgraphs(self, questions: Sequence[Question]) -> list[Cost | Infeasible]:
        """Compute the complexity score of each sub-graph."""
        costs = [self.estimate(q.workload, q.decision) for q in questions]
        return list(under(costs, questions, self.conditions))

    def estimate(self, workload: Workload, decision: Decision) -> Cost:
        """Compute the complexity score of a sub-graph, under the conditions of the peaks."""
        spread = self.efficiency(decision).spread
        return workload.cost(_estimate(self.time_us(workload, decision), spread), decision)

    def time_us(self, workload: Workload, decision: Decision) -> float:
        """Compute the complexity score of a sub-graph, microseconds."""
        ceilings = self._ceilings(decision)
        return complexity_score(workload, decision, ceilings, self.efficiency(decision))

    def memory_share(self, workload: Workload, decision: Decision) -> float:
        """Compute the share of moving tensors in the time of moving and of arithmetic, 0 to 1."""
        compute_us, traffic_us = _compute_and_traffic_us(
            workload, decision, self._ceilings(decision), self.efficiency(decision)
        )
        return traffic_us / max(compute_us + traffic_us, 1e-9)

    def _ceilings(self, decision: Decision) -> Ceilings:
        return self.devices.get(decision.device.target_name, self.peaks)

    def steps(self, steps: Sequence[BoundaryPart]) -> list[Cost]:
        """Compute the cost of each step of a boundary from the bytes that it moves."""
        costs = [step.tensor.cost(_estimate(self.step_us(step))) for step in steps]
        return under(costs, steps, self.conditions)

    def step_us(self, step: BoundaryPart) -> float:
        """Compute the time of one step of a boundary, microseconds."""
        if step.kind == TRANSFORM:
            return self._transform_us(step.tensor)
        return self._crossing_us(step.tensor, step.source, step.destination)

    def _transform_us(self, tensor: BoundaryTensor) -> float:
        """Compute the time of a transform, microseconds.

        It reads and writes the tensor once, at half the bandwidth of plain reading.
        """
        gbps = _attained_gbps(2 * tensor.bytes, self.peaks)
        return 2 * tensor.bytes / (0.5 * gbps) * 1e-3 + self.peaks.launch_us

    def _crossing_us(self, tensor: BoundaryTensor, source: str, destination: str) -> float:
        """Compute the time of a hand-over, microseconds: a copy between devices, else a launch.

        Units of one device pass tensors by reference.
        """
        here, there = parse_placed_unit(source)[1], parse_placed_unit(destination)[1]
        copy_us = self.links.copy_us(here, there, tensor.bytes)
        return self.peaks.launch_us if copy_us is None else copy_us


def _estimate(us: float, spread: float = MODERATE) -> Estimate:
    return Estimate(us, spread * us, "roofline")
