"""Deployment of a distribution: its engine, artifacts and threads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from layoutsel.cluster.deployed_network import DeployedNetwork
from layoutsel.cluster.distribution import Distribution, Distributions
from layoutsel.cluster.emulation import Emulation
from layoutsel.cluster.engine import Announced, ClusterEngine
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.local_engine import LocalEngine
from layoutsel.cluster.node_queues import ClusterLimits
from layoutsel.cluster.ray_settings import Security
from layoutsel.cluster.replanning import Replanner
from layoutsel.cluster.routing import Epoch, nodes_of
from layoutsel.device.artifact_header import read_header
from tvm_passes.errors import LayoutselError

EMULATED = "emulated"
"""Engine of threads of this process that emulates the links and loads of the topology."""
RAY = "ray"
"""Engine of nodes that have joined a cluster of Ray."""
LOCAL = "local"
"""Engine of threads of this process."""
ENGINES = (LOCAL, EMULATED, RAY)
"""Names of engines."""


def deploy(  # noqa: PLR0913 - all but three have a default
    distributions: Distributions,
    target: str,
    artifacts: Mapping[str, Path],
    *,
    engine: str | ClusterEngine = "local",
    limits: ClusterLimits | None = None,
    fallback: str | None = None,
    replan: bool = False,
    security: Security | None = None,
    address: str = "auto",
) -> DeployedNetwork:
    """Run a distribution.

    Parameters
    ----------
    distributions
        Distributions of a network.
    target
        Name of the target whose distribution to run.
    artifacts
        Compiled model by machine class, with one stage for each atom.
    engine
        ``local`` for threads of this process, ``emulated`` for such threads with the links and
        loads of the topology, ``ray`` for a cluster of nodes that have joined, or an engine.
    limits
        ClusterLimits of requests and nodes.
    fallback
        ``local`` to compute on the origin node alone when no route is left; None for an error.
    replan
        True to plan again when statistics change, and to change the distribution without a pause.
    security
        Protection of a cluster of Ray.
    address
        Address of the head of a cluster of Ray.

    Raises
    ------
    LayoutselError
        If there is no such target, engine or artifact, or too few nodes answer.
    NodeRefused
        If a node has other versions or lacks instruction sets.
    """
    found = distributions[target]
    if fallback not in (None, "local"):
        raise LayoutselError(f"fallback {fallback!r}: expected 'local' or None")
    if absent := sorted(set(distributions.classes.values()) - artifacts.keys()):
        raise LayoutselError(
            f"no artifact for the machine class {absent[0]!r}: expected one for each of "
            f"{', '.join(sorted(set(distributions.classes.values())))}"
        )
    announced = {name: Announced.of(path) for name, path in artifacts.items()}
    rtt_s = 2e-6 * max((link.rtt_us for link in distributions.topology.links), default=0.0)
    threads = _threads(distributions, announced)
    if engine == RAY:
        _check_engines(distributions, found)
    running = _engine(engine, threads, distributions, security, address)
    try:
        deployed = DeployedNetwork(
            distributions,
            found,
            announced,
            running,
            limits=limits or ClusterLimits(rtt_s=rtt_s),
            fallback=fallback is not None,
        )
        if replan:
            controller = deployed.controller
            propose = Replanner(
                distributions, lambda: controller.epoch.distribution, deployed.attained_hz
            )
            deployed.watch(propose)
        return deployed
    except BaseException:
        running.close()
        raise


def _engine(
    engine: str | ClusterEngine,
    threads: Mapping[str, int],
    distributions: Distributions,
    security: Security | None,
    address: str,
) -> ClusterEngine:
    if not isinstance(engine, str):
        return engine
    if engine == LOCAL:
        return LocalEngine(threads)
    if engine == EMULATED:
        routes = MessageRoutes(distributions.topology, distributions.statistics)
        return LocalEngine(threads, Emulation(routes))
    if engine == RAY:
        from layoutsel.cluster.ray_engine import RayEngine

        origin = distributions.topology.origin
        return RayEngine(threads, origin=origin, address=address, security=security)
    raise unknown_engine(engine)


def unknown_engine(engine: str) -> LayoutselError:
    """Error about an engine that is none of :data:`ENGINES`."""
    return LayoutselError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}")


def _threads(distributions: Distributions, artifacts: Mapping[str, Announced]) -> dict[str, int]:
    """Threads by node: those of the topology, or of the node's artifact."""
    asked = {node.id: node.threads for node in distributions.topology.nodes}
    return {
        node: asked[node] or int(read_header(artifacts[name].path)["threads"])
        for node, name in distributions.classes.items()
    }


def _check_engines(distributions: Distributions, found: Distribution) -> None:
    """Reject a distribution with segments on nodes that cannot join a cluster of Ray."""
    used = frozenset[str]().union(*map(nodes_of, Epoch(0, found).all_routes()))
    for node in distributions.topology.computing:
        if node.id in used and node.engine != RAY:
            gateway = f" behind {node.via!r}" if node.via else ""
            raise LayoutselError(
                f"node {node.id!r}{gateway}: got the engine {node.engine!r}; 'cluster run' reaches "
                f"nodes with the engine {RAY!r} alone: plan for a topology without it"
            )
