"""Checks of costs and arrangements: each violation is one fault with path, got and expected."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from layoutsel.documents.saved import Fault
from layoutsel.exits.arrangement import Arrangement, ExitCosts


def cost_faults(costs: ExitCosts) -> Iterator[Fault]:
    """Yield the inconsistencies of costs; the paths begin with ``$``."""
    names = [kind.name for kind in costs.workers]
    count = len(costs.needs)
    if not names or len(set(names)) < len(names):
        yield "$.workers", f"the names {names}", "one or more workers, each name once"
    yield from _queues(costs)
    if not costs.trunk_us:
        yield "$.trunk_us", "no worker", "times on at least one worker"
    yield from _stages(costs.trunk_us, names, count + 1, "$.trunk_us")
    yield from _stages(costs.branch_us, names, count, "$.branch_us")
    for number, read in enumerate(costs.needs):
        if any(not 0 <= other < number for other in read):
            yield f"$.needs[{number}]", str(list(read)), f"branches before {number}"
    for name in ("start_us", "request_us", "call_us", "wait_us"):
        if not _is_time(us := getattr(costs, name)):
            yield f"$.{name}", str(us), "a time of at least 0"
    yield from _shares(costs.waiting, names, "$.waiting")
    yield from _shares(costs.late, names, "$.late")
    if any(costs.waiting.values()) and not costs.wait_us:
        yield "$.wait_us", str(costs.wait_us), "a time above 0, as workers wait"
    if not 1 <= costs.mean_over_median < math.inf:
        yield "$.mean_over_median", str(costs.mean_over_median), "a number from 1"
    yield from _pairs(costs, names, count)


def _shares(shares: Mapping[str, float], names: list[str], path: str) -> Iterator[Fault]:
    for worker, share in shares.items():
        if worker not in names:
            yield f"{path}.{worker}", "an unknown worker", f"one of {', '.join(names)}"
        if not 0 <= share < 1:
            yield f"{path}.{worker}", str(share), "a share from 0 to below 1"


def _queues(costs: ExitCosts) -> Iterator[Fault]:
    """Yield the devices whose queue may hold nothing."""
    for number, kind in enumerate(costs.workers):
        if kind.device and kind.in_flight < 1:
            got = f"{kind.in_flight} sub-graphs on the device {kind.device}"
            yield f"$.workers[{number}].in_flight", got, "at least 1"


def arrangement_faults(arrangement: Arrangement, costs: ExitCosts) -> Iterator[Fault]:
    """Yield the reasons why `arrangement` cannot run; the paths begin with ``$``."""
    if arrangement.trunk not in costs.trunk_us:
        yield "$.trunk", repr(arrangement.trunk), f"one of {', '.join(costs.trunk_us)}"
    if len(arrangement.branches) != len(costs.needs):
        yield "$.branches", f"{len(arrangement.branches)} branches", str(len(costs.needs))
        return
    for number, worker in enumerate(arrangement.branches):
        path = f"$.branches[{number}]"
        if worker is None:
            continue
        if worker not in costs.branch_us:
            yield path, repr(worker), f"null or one of {', '.join(costs.branch_us)}"
        for other in costs.needs[number]:
            if arrangement.branches[other] is None:
                yield f"$.branches[{other}]", "null", f"a worker: branch {number} needs its result"
    used = {arrangement.trunk, *arrangement.branches}
    cores = sum(kind.cores for kind in costs.workers if kind.name in used)
    if cores > costs.cores:
        yield "$", f"workers on {cores} cores at once", f"at most the {costs.cores} of the host"


def _pairs(costs: ExitCosts, names: list[str], count: int) -> Iterator[Fault]:
    for field, pairs in (("handover_us", costs.handover_us), ("copy_us", costs.copy_us)):
        for key, times in pairs.items():
            if not _is_pair(key, ">", names):
                yield f"$.{field}.{key}", repr(key), f"source>destination, of {', '.join(names)}"
            if len(times) != count or not all(map(_is_time, times)):
                yield f"$.{field}.{key}", str(list(times)), f"{count} times of at least 0, by tap"
    for key, us in costs.calls_us.items():
        if not _is_pair(key, ">", names):
            yield f"$.calls_us.{key}", repr(key), f"trunk>branch, of {', '.join(names)}"
        if not _is_time(us):
            yield f"$.calls_us.{key}", str(us), "a time of at least 0"
    for key, factor in costs.slowdown.items():
        if not _is_pair(key, "|", names):
            yield f"$.slowdown.{key}", repr(key), f"worker|other, of {', '.join(names)}"
        if not (math.isfinite(factor) and factor >= 1):
            yield f"$.slowdown.{key}", str(factor), "a factor of at least 1"


def _stages(
    times: Mapping[str, tuple[tuple[float, ...], ...]], names: list[str], count: int, path: str
) -> Iterator[Fault]:
    for worker, stages in times.items():
        if worker not in names:
            yield f"{path}.{worker}", "an unknown worker", f"one of {', '.join(names)}"
        if len(stages) != count:
            yield f"{path}.{worker}", f"{len(stages)} stages", str(count)
        if not all(_is_time(us) for stage in stages for us in stage):
            yield f"{path}.{worker}", str(stages), "finite times of at least 0"


def _is_pair(key: str, separator: str, names: list[str]) -> bool:
    """True if `key` is made of two different workers."""
    source, _, other = key.partition(separator)
    return source in names and other in names and source != other


def _is_time(us: float) -> bool:
    return math.isfinite(us) and us >= 0
