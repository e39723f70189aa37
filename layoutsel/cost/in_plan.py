"""Additional time of a sub-graph within a plan, compared with runs of it alone.

Alone, a candidate runs again and again: its weights come from the last-level cache, and its inputs
from the caches of the cores that read them. Within a plan, other sub-graphs' weights have taken the
place of its own, which then come from memory, and neighbours ran on other cores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from layoutsel.core.precision import relative_bytes
from layoutsel.core.workload import Workload
from layoutsel.cost.peaks import MachinePeaks
from tvm_passes.decision import Decision

_KEPT, _STEEPNESS = 7.3, 4
"""Bytes of a network's weights of which half stay in caches, relative to the second level's, and
the exponent with which the share falls for larger networks."""
_ACTIVATIONS = 0.34
"""Time for inputs and results in others' caches, relative to reading them at the cache's rate."""
_CALL_US = 0.34
"""Time between two calls, microseconds.

These numbers minimise a robust sum of squares over 1,417 sub-graphs of 18 networks, timed alone and
traced within plans. The rate of reading weights has no parameter: if fitted, it is 1.26 times the
stated one, and the errors are no smaller.
"""
FETCH_GBPS = 14.0
"""Rate of loading tiles from another core's cache, GB/s.

Derived from the additional time of 20 convolutions within plans, compared with single runs.
"""
_WINOGRAD_TAPS = 3
"""Height of the filters of Winograd's algorithm, which computes `outputs` rows at once."""


@dataclass(frozen=True)
class InPlan:
    """Additional times within the plans of one network on one machine's host."""

    peaks: MachinePeaks
    """Rates of the machine."""
    network_bytes: float
    """Bytes of all weights of the network, in f32."""

    def us(self, work: Workload, decision: Decision) -> float:
        """Compute the additional time of a candidate, microseconds; 0 on devices."""
        if not decision.device.is_host:
            return 0.0
        stored = relative_bytes(decision.precision)
        activations_us = 1e-3 * stored * work.activation_bytes / self.peaks.cache_gbps
        return (
            self.streaming_us(work, decision)
            + fetching_us(work, decision)
            + _ACTIVATIONS * activations_us
            + _CALL_US
        )

    def streaming_us(self, work: Workload, decision: Decision) -> float:
        """Compute the additional time for weights that come from memory, microseconds.

        Winograd's algorithm reads transformed weights, which are larger.
        """
        hints, peaks = work.hints_of(decision), self.peaks
        stored = relative_bytes(decision.precision)
        if "kernel_winograd" in hints:
            stored *= (1 + (hints["outputs"] - 1) / _WINOGRAD_TAPS) ** 2
        kept = _KEPT * peaks.cache_bytes / max(self.network_bytes, 1.0)
        in_memory = 1 / (1 + kept**_STEEPNESS)
        slower = max(1 / peaks.memory_gbps - 1 / peaks.cache_gbps, 0.0)
        return 1e-3 * in_memory * slower * stored * work.weight_bytes


def fetching_us(work: Workload, decision: Decision) -> float:
    """Compute the additional time of a kernel whose threads share output channels, microseconds.

    Each thread reads the whole input, but earlier kernels left only a part of it in each core's
    cache. In single measurements, every core has all of it from the start.
    """
    parts = work.hints_of(decision).get("parts", 1.0)
    if parts == 1:
        return 0.0
    nbytes = 4 * relative_bytes(decision.precision)
    return math.prod(work.inputs[0]) * nbytes * (1 - 1 / parts) / FETCH_GBPS * 1e-3
