"""Named features of a boundary: a layout transform, or a hand-over from unit to unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np

from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost.model import BoundaryPart
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.samples import MachineProfile
from tvm_passes.backends import encoded_units
from tvm_passes.layout import order_of, storage_of
from tvm_passes.layouts import encoded_layouts
from tvm_passes.precisions import encoded_precisions, storage_in

_ORDERS = encoded_layouts()
_STORAGES = tuple(filter(None, map(storage_in, encoded_precisions())))
_UNITS = encoded_units()
_FLOOR_US = 0.05
"""Minimum time that is learned, microseconds: the measured time of a hand-over may be zero."""


@dataclass(frozen=True)
class AskedBoundary:
    """A step of a boundary on a machine, to be priced."""

    kind: str
    """Kind of the step, a key of :data:`layoutsel.cost.model.KINDS`."""
    source: str
    """Layout or placed unit of the producer."""
    destination: str
    """Layout or placed unit of the consumer."""
    tensor: BoundaryTensor
    """Tensor that passes the boundary."""
    profile: MachineProfile
    """Machine on which the step runs."""

    @property
    def margin(self) -> float:
        """Natural logarithm of the roofline's time in microseconds."""
        step = BoundaryPart(self.kind, self.tensor, self.source, self.destination)
        return float(np.log(RooflineCost.of(self.profile).step_us(step)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor, extended or cut to the four extents of an image."""
        return (*self.tensor.shape, 1, 1, 1, 1)[:4]


def _equals(of: Callable[[AskedBoundary], str], name: str) -> Callable[[AskedBoundary], float]:
    return lambda asked: float(of(asked) == name)


_FEATURES: dict[str, Callable[[AskedBoundary], float]] = {
    "bytes": lambda a: log2(max(a.tensor.bytes, 1)),
    "is_crossing": lambda a: a.kind == "crossing",
    "channels": lambda a: log2(max(a.shape[1], 1)),
    "pixels": lambda a: log2(max(a.shape[2] * a.shape[3], 1)),
    "width": lambda a: log2(max(a.shape[3], 1)),
    "channels_filled": lambda a: a.shape[1] % a.profile.lanes == 0,
    "width_filled": lambda a: a.shape[3] % a.profile.lanes == 0,
    "in_l2": lambda a: log2(max(a.tensor.bytes, 1) / a.profile.peaks.cache_bytes),
    "threads": lambda a: a.profile.threads,
    "lanes": lambda a: a.profile.lanes,
    "cache_gbps": lambda a: log2(a.profile.peaks.cache_gbps),
    "memory_gbps": lambda a: log2(a.profile.peaks.memory_gbps),
    **{f"from_{name}": _equals(lambda a: order_of(a.source), name) for name in _ORDERS},
    **{f"to_{name}": _equals(lambda a: order_of(a.destination), name) for name in _ORDERS},
    **{f"from_{name}": _equals(lambda a: storage_of(a.source), name) for name in _STORAGES},
    **{f"to_{name}": _equals(lambda a: storage_of(a.destination), name) for name in _STORAGES},
    **{f"to_{name}": _equals(lambda a: a.destination, name) for name in _UNITS},
}

NAMES = tuple(_FEATURES)
"""Names of the features, in the order of the columns of :func:`feature_table`."""
MONOTONE = frozenset({"bytes"})
"""Features that never make a boundary faster when they grow and all others stay the same."""


def features(asked: AskedBoundary) -> np.ndarray:
    """Compute the values of :data:`NAMES`, float32."""
    return np.array([feature(asked) for feature in _FEATURES.values()], dtype=np.float32)


def feature_table(asked: Sequence[AskedBoundary]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the features of each step and the natural logarithm of its roofline's microseconds.

    Returns
    -------
    tuple
        Features, (steps, features) float32, and logarithms, (steps,) float32.
    """
    if not asked:
        return np.zeros((0, len(NAMES)), np.float32), np.zeros(0, np.float32)
    return np.stack([features(one) for one in asked]), np.array(
        [a.margin for a in asked], np.float32
    )


def log_time(us: float) -> float:
    """Learning target of a boundary that took `us` microseconds: a natural logarithm."""
    return float(np.log(max(us, _FLOOR_US)))
