"""Demonstration on this machine: two nodes of Ray, a network divided over them, a node killed."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import layoutsel
from layoutsel.cluster.deployed_network import DeployedNetwork
from layoutsel.cluster.deploying import deploy
from layoutsel.cluster.distributing import distribute
from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.joining import Joining, join_cluster
from layoutsel.cluster.probing import Probes, with_links
from layoutsel.cluster.ray_settings import RESOURCE, Security
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.runtime.samples import random_inputs, rel_l2_err

HOST = "127.0.0.1"
"""Address of both nodes."""
NODES = ("origin", "worker")
"""Ids of the nodes."""
TARGETS = ("latency", "throughput")
"""Targets that are planned and run."""
REQUESTS = 40
"""Number of requests of each measurement."""
_STORE_BYTES = 200 << 20
_END_S = 10.0
"""Time limit of the end of Ray's processes, seconds."""
_TOLERANCE = 1e-5
"""Largest relative L2 error against the whole model."""

Say = Callable[[str], None]
"""Function that shows a line of text."""


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """Course of a demonstration."""

    distributions: Distributions
    """Distributions with measured latency and throughput."""
    answers: int
    """Number of right answers while a node was killed."""
    wrong: int
    """Number of wrong answers."""
    replays: int
    """Number of requests that were computed again."""
    longest_ms: float
    """Longest time between two answers, milliseconds."""


def demonstrate(model: str, folder: Path, say: Say, **options: Any) -> Demonstration:
    """Start two nodes, divide a model for latency and throughput, run both, and kill a node.

    Parameters
    ----------
    model
        Model as in :func:`layoutsel.optimize`.
    folder
        Folder for the artifact.
    say
        Function that shows progress.
    **options
        Options of :func:`layoutsel.plan`.
    """
    with _nodes(say) as cluster:
        topology = cluster.probed(_topology())
        say(f"planning {model} for {' and '.join(TARGETS)}")
        planned = distribute(model, topology, targets=TARGETS, **options)
        (plan,) = planned.plans.values()
        say("compiling the network once, with a stage for each part that a node may run")
        built = layoutsel.compile_plan(model, plan, **options)
        artifact = built.save(folder / "network.so")
        inputs = random_inputs(built.inputs)
        expected = built.run_all(inputs)[: len(built.outputs)]
        artifacts = dict.fromkeys(planned.plans, artifact)

        def deployed(target: str) -> DeployedNetwork:
            return deploy(
                planned, target, artifacts, engine="ray", address=cluster.address, security=SECURITY
            )

        for target in TARGETS:
            with deployed(target) as network:
                network(*inputs)
                say(f"running the distribution for {target}")
                planned = planned.measured(target, _measured(network, inputs))
        say(f"running it again, and killing node {NODES[1]!r} in the middle")
        with deployed(TARGETS[-1]) as network:
            network(*inputs)
            return _killed(network, cluster, planned, inputs, expected)


SECURITY = Security()
"""Both nodes are reached on loopback alone."""


def _topology() -> Topology:
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin=NODES[0]),
        nodes=tuple(Node(id=node, threads=1) for node in NODES),
        links=(Link(source=NODES[0], target=NODES[1], gbps=1.0, rtt_us=1000.0),),
    )


def _measured(network: DeployedNetwork, inputs: list[np.ndarray]) -> dict[str, float]:
    """Median latency of single requests, microseconds, and throughput of many, hertz."""
    times = []
    for _ in range(REQUESTS):
        start = time.perf_counter()
        network(*inputs)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    count = sum(1 for _ in network.stream(inputs for _ in range(2 * REQUESTS)))
    return {
        "latency": 1e6 * float(np.median(times)),
        "throughput": count / (time.perf_counter() - start),
    }


def _killed(
    network: DeployedNetwork,
    cluster: _Nodes,
    planned: Distributions,
    inputs: list[np.ndarray],
    expected: list[np.ndarray],
) -> Demonstration:
    """Answer requests while a node dies."""

    def requests() -> Iterator[list[np.ndarray]]:
        for number in range(2 * REQUESTS):
            if number == REQUESTS // 2:
                killer.submit(cluster.kill, NODES[1])
            yield inputs

    wrong, ends = 0, []
    with ThreadPoolExecutor(1) as killer:
        for found in network.stream(requests()):
            ends.append(time.perf_counter())
            results = found if isinstance(found, tuple) else (found,)
            errors = [rel_l2_err(got, want) for got, want in zip(results, expected, strict=True)]
            wrong += not max(errors) <= _TOLERANCE
    return Demonstration(
        distributions=planned,
        answers=len(ends) - wrong,
        wrong=wrong,
        replays=network.counts["replays"],
        longest_ms=1e3 * float(np.max(np.diff(ends))),
    )


class _Nodes:
    """Two nodes of Ray on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.address = f"{HOST}:{port}"
        """Address of the head."""

    def probed(self, topology: Topology) -> Topology:
        """Copy a topology with measured links."""
        with Probes(NODES, self.address, SECURITY) as probes:
            return with_links(topology, list(probes.links()))

    def kill(self, node: str) -> None:
        """Kill all processes of a node."""
        for raylet in self._processes(RESOURCE + node):
            for process in (*raylet.children(recursive=True), raylet):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def close(self) -> None:
        """End all processes of both nodes."""
        found = self._processes(str(self._port))
        for process in list(found):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += process.children(recursive=True)
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(found, timeout=_END_S)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _processes(self, word: str) -> list[psutil.Process]:
        """Processes of this cluster whose command holds a word."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if "ray" in command and str(self._port) in command and word in command:
                    found.append(process)
        return [one for one in found if one.pid != psutil.Process().pid]


@contextmanager
def _nodes(say: Say) -> Iterator[_Nodes]:
    """Start both nodes; the end of the block ends them."""
    port = _free_port()
    nodes = _Nodes(port)
    try:
        for node in NODES:
            say(f"starting node {node!r}, one thread")
            head = None if node == NODES[0] else nodes.address
            joining = Joining(
                node=node,
                own_address=HOST,
                head=head,
                port=port,
                threads=1,
                store_bytes=_STORE_BYTES,
            )
            join_cluster(joining, SECURITY)
        yield nodes
    finally:
        nodes.close()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])
