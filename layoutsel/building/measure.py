"""Function of measuring processes: build one candidate and time it.

It is called by name in a child process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm

from layoutsel.building.candidate import Built, build_candidate, build_chain, build_transform
from layoutsel.building.reference import reference_kernel
from layoutsel.device import timing
from layoutsel.device.threads import set_threads
from layoutsel.device.timing import CHAIN, Measured, time_copy
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.operator_calls import declare_operators
from tvm_passes.targets import for_threads
from tvm_passes.tuned import database_of


def run_request(request: Mapping[str, Any]) -> Measured:
    """Build and time the candidate that `request` describes.

    Returns
    -------
    tuple
        Time and spread of one run in microseconds, and the number of runs; see
        :mod:`layoutsel.device.timing`.
    """
    threads = int(request["threads"])
    set_threads(threads)
    with for_threads(threads):
        built = build_request(request, host_target())
        reference = reference_kernel().ready
    if not built:
        return time_copy(places_of(request), tuple(request["shape"]))
    candidates = [one.ready for one in built]
    if request["kind"] == "crossing":
        return timing.time_crossing(candidates, reference, threads)
    return timing.time_candidate(candidates[0], reference, threads)


def build_request(request: Mapping[str, Any], target: tvm.target.Target) -> tuple[Built, ...]:
    """Build the code that `request` asks to time.

    It is one program for a candidate or a transform, three chains for a hand-over (see
    :func:`layoutsel.device.timing.time_crossing`), and none for a copy.
    """
    return _BUILDERS[request["kind"]](request, target)


def places_of(request: Mapping[str, Any]) -> tuple[DeviceId, DeviceId]:
    """Return the devices whose memories a crossing joins."""
    source, destination = (parse_placed_unit(request[end])[1] for end in ("source", "destination"))
    return source, destination


def time_candidate(built: Built, threads: int) -> Measured:
    """Time a candidate on this machine; see :func:`layoutsel.device.timing.time_candidate`."""
    with for_threads(threads):
        reference = reference_kernel().ready
    return timing.time_candidate(built.ready, reference, threads)


def _subgraph(request: Mapping[str, Any], target: tvm.target.Target) -> tuple[Built, ...]:
    declare_operators()
    function = tvm.ir.load_json(request["function"])
    with database_of(request.get("record")):
        return (build_candidate(function, Decision.parse(request["decision"]), target),)


def _transform(request: Mapping[str, Any], target: tvm.target.Target) -> tuple[Built, ...]:
    shape, layouts = tuple(request["shape"]), (request["source"], request["destination"])
    return (build_transform(shape, request["dtype"], *layouts, request["unit"], target),)


def _crossing(request: Mapping[str, Any], target: tvm.target.Target) -> tuple[Built, ...]:
    source, destination = request["source"], request["destination"]
    if places_of(request) != (HOST_DEVICE, HOST_DEVICE):
        return ()
    return tuple(
        build_chain([units[index % len(units)] for index in range(CHAIN)], target)
        for units in ((source, destination), (source,), (destination,))
    )


def _reference(_request: Mapping[str, Any], _target: tvm.target.Target) -> tuple[Built, ...]:
    return (reference_kernel(),)


_BUILDERS = {
    "subgraph": _subgraph,
    "transform": _transform,
    "crossing": _crossing,
    "reference": _reference,
}
