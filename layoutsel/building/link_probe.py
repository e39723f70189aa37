"""Timing of copies between devices, in a separate process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import tvm

from layoutsel import documents
from layoutsel.building.device_probe import LARGE_BYTES, seconds
from layoutsel.cost.link_probing import MeasuredLinks
from layoutsel.cost.links import DeviceLink
from tvm_passes.backends import BACKENDS
from tvm_passes.devices import DeviceId
from tvm_passes.errors import LayoutselError

_SMALL_BYTES = 64
"""Size of the small copy, which shows the latency."""


def measure_link(source: DeviceId, destination: DeviceId) -> DeviceLink:
    """Time a small and a large copy from one device to another.

    Raises
    ------
    LayoutselError
        If a device is unavailable.
    """
    for device in (source, destination):
        backends = (one for one in BACKENDS.values() if one.device == device.target_kind)
        if not device.is_host and (reason := next(backends).unavailable()):
            raise LayoutselError(
                f"cannot measure the link from {source} to {destination}: {reason}"
            )
    latency_s, whole_s = (
        seconds(_copy(source, destination, nbytes), 1) for nbytes in (_SMALL_BYTES, LARGE_BYTES)
    )
    return DeviceLink(
        source=source,
        destination=destination,
        latency_us=latency_s * 1e6,
        gbps=LARGE_BYTES / max(whole_s - latency_s, 1e-9) / 1e9,
    )


def _copy(source: DeviceId, destination: DeviceId, nbytes: int) -> Callable[[int], None]:
    """Make a function that copies `nbytes` a given number of times and waits for the last copy."""
    value = np.zeros(nbytes // 4, np.float32)
    ends = [tvm.device(end.kind, end.index) for end in (source, destination)]
    here, there = (tvm.runtime.tensor(value, end) for end in ends)

    def run(times: int) -> None:
        for _ in range(times):
            here.copyto(there)
        for end in ends:
            end.sync()

    return run


def report(pairs: Sequence[Sequence[str]]) -> None:
    """Print the links between pairs of devices as JSON, the last output of a child process."""
    links = tuple(measure_link(*map(DeviceId.parse, pair)) for pair in pairs)
    print(json.dumps(documents.to_json(MeasuredLinks(links=links))))
