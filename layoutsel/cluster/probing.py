"""Measurement of links through Ray, as segments use them, and of the nodes' states."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from layoutsel.cluster.engine import NodeLost
from layoutsel.cluster.own_load import OwnLoad
from layoutsel.cluster.ray_engine import connected
from layoutsel.cluster.ray_settings import RESOURCE, Security
from layoutsel.cluster.statistics import NodeState
from layoutsel.cluster.topology import Link, Topology

SMALL_BYTES, LARGE_BYTES, LARGEST_BYTES = 8 << 10, 1 << 20, 4 << 20
"""Sizes of the messages: the first tells the fixed part, the others the time of a byte."""
RUNS = {SMALL_BYTES: 40, LARGE_BYTES: 12, LARGEST_BYTES: 6}
"""Number of messages of each size."""
LIMIT_S = 30.0
"""Time limit of a message, seconds."""
_STATE_S = 0.5
"""Interval over which states are measured, seconds."""
_LEAST_SHARE = 0.1
"""Least share of a message's time that is the wire's, as processor times are noisy."""


@dataclass(frozen=True, kw_only=True)
class MeasuredLink:
    """Messages between two nodes, the slower direction of both."""

    nodes: tuple[str, str]
    """Ends."""
    us: float
    """Time of a message without bytes, microseconds."""
    us_per_byte: float
    """Time of a byte, microseconds."""
    cpu_us: float
    """Processor time of a message at each end, microseconds."""
    cpu_ns_per_byte: float
    """Processor time of a byte at each end, nanoseconds."""

    @property
    def gbps(self) -> float:
        """Rate of the wire alone, gigabits per second."""
        cpu_us = 2e-3 * self.cpu_ns_per_byte
        return 8e-3 / max(self.us_per_byte - cpu_us, _LEAST_SHARE * self.us_per_byte)

    @property
    def rtt_us(self) -> float:
        """Round trip of the wire alone, microseconds."""
        return 2 * max(self.us - 2 * self.cpu_us, _LEAST_SHARE * self.us)


class NodeProbe:
    """The process of a node that exchanges messages with others; Ray makes it an actor."""

    def __init__(self) -> None:
        self._load = OwnLoad()

    def make(self, size: int) -> np.ndarray:
        """Make a message."""
        return np.ones(size, np.uint8)

    def take(self, message: np.ndarray) -> int:
        """Receive a message."""
        return message.nbytes

    def processor_s(self) -> float:
        """Processor time of this node's Ray so far, seconds."""
        found = 0.0
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if _is_ray(process):
                    times = process.cpu_times()
                    found += times.user + times.system
        return found

    def state(self) -> NodeState:
        """State of this machine since the last call."""
        return self._load.state()


class Probes:
    """Probes on the nodes of a cluster; a context manager.

    Parameters
    ----------
    nodes
        Nodes of the topology.
    address
        Address of the head.
    security
        Protection of the cluster.
    """

    def __init__(self, nodes: Sequence[str], address: str, security: Security) -> None:
        self._ray = connected(address, security)
        made = self._ray.remote(NodeProbe)
        self._actors = {
            node: made.options(num_cpus=0, resources={RESOURCE + node: 0.01}).remote()
            for node in nodes
        }

    def __enter__(self) -> Probes:
        return self

    def __exit__(self, *_error: object) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()

    def links(self) -> Iterator[MeasuredLink]:
        """Measure the messages between all pairs of nodes."""
        for one, other in combinations(self._actors, 2):
            ways = [self._measure(one, other), self._measure(other, one)]
            yield max(ways, key=lambda way: way.us + way.us_per_byte * LARGE_BYTES)

    def states(self) -> dict[str, NodeState]:
        """States of the nodes over a short interval."""
        for node in self._actors:
            self._get(node, self._actors[node].state.remote())
        time.sleep(_STATE_S)
        return {node: self._get(node, actor.state.remote()) for node, actor in self._actors.items()}

    def _measure(self, source: str, destination: str) -> MeasuredLink:
        us, cpu_us = {}, {}
        ends = source, destination
        for size, runs in RUNS.items():
            self._send(source, destination, size)
            before = [self._processor_s(node) for node in ends]
            us[size] = median(self._send(source, destination, size) for _ in range(runs))
            used = sum(self._processor_s(node) for node in ends) - sum(before)
            cpu_us[size] = 1e6 * used / runs / 2
        small, large = SMALL_BYTES, LARGEST_BYTES
        per_byte = max(us[large] - us[LARGE_BYTES], 0.0) / (large - LARGE_BYTES)
        per_byte = per_byte or us[large] / large
        return MeasuredLink(
            nodes=(source, destination),
            us=max(0.0, us[small] - per_byte * small),
            us_per_byte=per_byte,
            cpu_us=cpu_us[small],
            cpu_ns_per_byte=1e3 * max(0.0, cpu_us[large] - cpu_us[small]) / (large - small),
        )

    def _send(self, source: str, destination: str, size: int) -> float:
        """Time of a message with the call that it is for, microseconds."""
        message = self._actors[source].make.remote(size)
        ready, _ = self._ray.wait([message], timeout=LIMIT_S, fetch_local=False)
        if not ready:
            raise NodeLost(source, f"no answer within {LIMIT_S:g} s")
        start = time.perf_counter()
        self._get(destination, self._actors[destination].take.remote(message))
        return 1e6 * (time.perf_counter() - start)

    def _processor_s(self, node: str) -> float:
        return float(self._get(node, self._actors[node].processor_s.remote()))

    def _get(self, node: str, ref: Any) -> Any:
        try:
            return self._ray.get(ref, timeout=LIMIT_S)
        except self._ray.exceptions.RayError as error:
            why = f"no answer within {LIMIT_S:g} s; has 'layoutsel cluster join' been run there?"
            raise NodeLost(node, why) from error


def with_links(topology: Topology, measured: Sequence[MeasuredLink]) -> Topology:
    """Copy of a topology with measured links.

    A link of a switch has the best rate of all messages over it; round trips and processor
    times of a way are divided equally among its links.
    """
    found: dict[frozenset[str], Link] = {}
    for one in measured:
        way = _way(topology, *one.nodes)
        for link in way:
            ends = frozenset((link.source, link.target))
            new = replace(
                link,
                gbps=one.gbps,
                rtt_us=one.rtt_us / len(way),
                cpu_us=one.cpu_us,
                cpu_ns_per_byte=one.cpu_ns_per_byte,
            )
            if ends not in found or new.gbps > found[ends].gbps:
                found[ends] = new
    links = (found.get(frozenset((link.source, link.target)), link) for link in topology.links)
    return replace(topology, links=tuple(links))


def _way(topology: Topology, source: str, destination: str) -> list[Link]:
    """Links from one node to another through switches alone; none if nodes lie between."""
    nodes = {node.id for node in topology.computing}
    ways: dict[str, list[Link]] = {source: []}
    waiting = [source]
    while waiting:
        here = waiting.pop(0)
        if here != source and here in nodes:
            continue
        for link in topology.links:
            if here in (link.source, link.target):
                there = link.target if link.source == here else link.source
                if there not in ways:
                    ways[there] = [*ways[here], link]
                    waiting.append(there)
    return ways.get(destination, [])


def _is_ray(process: psutil.Process) -> bool:
    """True for a process of Ray on this node: emulated nodes share process numbers."""
    own = Path("/proc/self/ns/net")
    if own.exists() and own.readlink() != Path(f"/proc/{process.pid}/ns/net").readlink():
        return False
    return process.name().startswith(("raylet", "ray::", "gcs_server"))
