"""Strict parsing of lines and rows of logs: nonsense never becomes training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.cost.conditions import Conditions
from layoutsel.cost.samples import BoundarySample, LoadSample, Provenance, Sample
from layoutsel.documents import from_json
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

UNREADABLE = (LayoutselError, KeyError, TypeError, ValueError, AttributeError, RecursionError)
"""Exceptions that parsing damaged data raises."""

_KINDS = ("transform", "crossing")
_MOST_US = 1e12
"""Upper limit of plausible times, microseconds."""
_MOST_HINT = 1e15
"""Upper limit of plausible hints."""


@dataclass(frozen=True, kw_only=True)
class _Timing:
    us: float
    """Time of one run, microseconds."""
    spread_us: float
    """Uncertainty of the time, microseconds."""
    runs: int
    """Number of timed runs."""

    def __post_init__(self) -> None:
        if not (0 <= self.us < _MOST_US and 0 <= self.spread_us < _MOST_US):
            raise LayoutselError(
                f"got {self.us:g} +/- {self.spread_us:g} as a time; "
                "expected microseconds above zero"
            )


def read_workload(document: Any) -> Workload:
    """Parse a workload.

    Raises
    ------
    LayoutselError
        If the document is not a workload.
    """
    work = from_json(Workload, document)
    if min(work.flops, work.weight_bytes, work.activation_bytes) < 0:
        raise LayoutselError("a workload of less than nothing")
    return work


def read_sample(
    work: Workload,
    decision: Any,
    hints: Any,
    timing: Mapping[str, Any],
    provenance: Provenance,
) -> Sample:
    """Parse a measured candidate.

    Parameters
    ----------
    work
        Workload of the candidate.
    decision
        Text of the decision.
    hints
        Facts about the code, by name.
    timing
        ``us``, ``spread_us`` and ``runs``.
    provenance
        Origin of the measurement.

    Raises
    ------
    LayoutselError
        If a value is not plausible.
    """
    decided, found = Decision.parse(from_json(str, decision)), from_json(dict[str, float], hints)
    if any(abs(value) > _MOST_HINT for value in found.values()):
        raise LayoutselError("a hint that is no extent")
    time = from_json(_Timing, dict(timing))
    if time.us == 0:
        raise LayoutselError("got 0 as a time; expected microseconds above zero")
    return Sample(
        workload=replace(work, hints={str(decided): found} if found else {}),
        decision=decided,
        us=time.us,
        spread_us=time.spread_us,
        runs=time.runs,
        provenance=provenance,
    )


def read_boundary(
    kind: str,
    places: tuple[Any, Any],
    tensor: Any,
    timing: Mapping[str, Any],
    provenance: Provenance,
) -> BoundarySample:
    """Parse a measured transform or crossing.

    Parameters
    ----------
    kind
        ``transform`` or ``crossing``.
    places
        Source and destination: two layouts or two units.
    tensor
        Shape, element type and bytes of the tensor.
    timing
        ``us``, ``spread_us`` and ``runs``; the time may be zero.
    provenance
        Origin of the measurement.

    Raises
    ------
    LayoutselError
        If a value is not plausible.
    """
    source, destination = (from_json(str, place) for place in places)
    spec = from_json(BoundaryTensor, tensor)
    if kind not in _KINDS or source == destination or spec.bytes < 0:
        raise LayoutselError(
            f"no boundary: {kind} of {spec.bytes} bytes, {source} to {destination}"
        )
    time = from_json(_Timing, dict(timing))
    return BoundarySample(
        kind=kind,
        source=source,
        destination=destination,
        tensor=spec,
        us=time.us,
        spread_us=time.spread_us,
        runs=time.runs,
        provenance=provenance,
    )


@dataclass(frozen=True, kw_only=True)
class _Loaded(_Timing):
    model: str
    """Name of the model."""
    conditions: Conditions
    """Threads, cores and load."""
    idle_us: float
    """Time of one run without load, microseconds."""


def read_load_sample(
    work: Workload, decision: Any, measured: Mapping[str, Any], provenance: Provenance
) -> LoadSample:
    """Parse a candidate that was measured under load.

    Parameters
    ----------
    work
        Workload of the candidate.
    decision
        Text of the decision.
    measured
        Other fields of :class:`~layoutsel.cost.samples.LoadSample`.
    provenance
        Origin of the measurement.

    Raises
    ------
    LayoutselError
        If a value is not plausible.
    """
    found = from_json(_Loaded, dict(measured))
    if not (0 < found.idle_us < _MOST_US and found.us > 0 and found.conditions.load is not None):
        raise LayoutselError(
            f"got {found.us:g} and {found.idle_us:g} as times with and without load; "
            "expected microseconds above zero, and a load"
        )
    return LoadSample(
        model=found.model,
        workload=work,
        decision=Decision.parse(from_json(str, decision)),
        conditions=found.conditions,
        us=found.us,
        spread_us=found.spread_us,
        idle_us=found.idle_us,
        runs=found.runs,
        provenance=provenance,
    )
