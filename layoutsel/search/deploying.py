"""Found networks on the nodes of their topology, placed as the search has placed them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from layoutsel.cluster.building import build
from layoutsel.cluster.classes import PlannedClass, machine_classes, plan_class
from layoutsel.cluster.deployed_network import DeployedNetwork
from layoutsel.cluster.deploying import EMULATED, ENGINES, RAY, deploy, unknown_engine
from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.engine_probing import engine_between, engine_profile
from layoutsel.cluster.engine_times import FREE, EngineTimes
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.metrics import LATENCY
from layoutsel.cluster.placed import placed_distributions
from layoutsel.cluster.ray_settings import Security
from layoutsel.cluster.stage_times import with_stage_times
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import Topology
from layoutsel.compile.options import Options
from layoutsel.cost.graph import Subgraph
from layoutsel.runtime.loading import load
from layoutsel.runtime.samples import random_inputs, rel_l2_err
from layoutsel.search.found import NETWORK, FoundNetwork, Measurement
from layoutsel.search.link_choice import over_link
from layoutsel.search.run_folder import RunFolder
from layoutsel.search.trained import part_of
from tvm_passes.decision import SubgraphId
from tvm_passes.errors import LayoutselError

REQUESTS = 40
"""Number of timed requests."""
TOLERANCE = 1e-5
"""Largest relative L2 error of outputs against the whole network on one node."""
DISTRIBUTIONS = "distributions.json"
"""File of the distribution in the folder of a found network."""

Say = Callable[[str], None]
"""Function that shows a line of text."""


def distributions_as_found(
    model: onnx.ModelProto | Path,
    placement: Mapping[str, str],
    topology: Topology,
    statistics: Statistics,
    machines: Path,
    *,
    engine: EngineTimes = FREE,
    **options: Any,
) -> Distributions:
    """Distribute a network as a search has placed it.

    Each sub-graph runs on the node of its first operator's part. The network is planned once for
    each class of machines, and the times are those of the plans.

    Parameters
    ----------
    model
        Network whose nodes have the names of parts.
    placement
        Node by part.
    topology, statistics
        Nodes and links, and their state.
    machines
        Folder that machine files are relative to.
    engine
        Time that the engine takes by itself.
    **options
        Options of :func:`layoutsel.plan`.
    """
    classes = machine_classes(topology, machines)
    planned = [plan_class(model, one, Options(**options)) for one in classes]
    held, nodes = _held_by_nodes(planned[0], placement)
    routes = MessageRoutes(topology, statistics, engine)
    return placed_distributions(planned, held, nodes, routes)


def _held_by_nodes(
    planned: PlannedClass, placement: Mapping[str, str]
) -> tuple[dict[str, tuple[SubgraphId, ...]], dict[str, str]]:
    """Divide sub-graphs into atoms of neighbours on one node; returns the node of each as well.

    An atom ends with each result of the network, so that an early exit is there before the rest.
    """
    graph = planned.offers.session.graph
    results = {edge.producer for edge in graph.edges if edge.consumer is None}
    held: dict[str, tuple[SubgraphId, ...]] = {}
    nodes: dict[str, str] = {}
    last = ""
    for subgraph in graph.subgraphs:
        node = _node_of(subgraph, placement)
        if not held or node != nodes[last] or results & set(held[last]):
            last = f"a{len(held)}"
            held[last], nodes[last] = (), node
        held[last] += (subgraph.id,)
    return held, nodes


def _node_of(subgraph: Subgraph, placement: Mapping[str, str]) -> str:
    parts = list(dict.fromkeys(part_of(name) for name in subgraph.names))
    found = next((placement[part] for part in parts if part in placement), None)
    if found is None:
        raise LayoutselError(
            f"sub-graph {subgraph.id}: got operators of {', '.join(parts) or 'no part'}; expected "
            f"one of the parts {', '.join(placement)}. Deploy the file that the search has written"
        )
    return found


def measure(
    run: RunFolder,
    found: FoundNetwork,
    say: Say,
    *,
    engine: str = EMULATED,
    requests: int = REQUESTS,
    security: Security | None = None,
    address: str = "auto",
    **options: Any,
) -> FoundNetwork:
    """Compile a found network for its nodes, run it there, and compare it with its prediction.

    Files are written into the network's folder.

    Parameters
    ----------
    run
        Folder of the search.
    found
        Network to deploy.
    say
        Function that shows progress.
    engine
        Engine of the nodes, as for :func:`layoutsel.cluster.deploying.deploy`.
    requests
        Number of timed requests.
    security, address
        Protection and address of a cluster of Ray.
    **options
        Options of :func:`layoutsel.plan`.

    Returns
    -------
    FoundNetwork
        Copy with the measurement, as written to the folder.

    Raises
    ------
    LayoutselError
        If the network cannot be planned, compiled or deployed, or gives other results than the
        whole network on one node.
    """
    folder, question = run.folder_of(found.number), run.question
    file = folder / NETWORK
    topology, statistics = over_link(question.topology, question.statistics, found.link)
    _check_machines(topology, engine)
    say(f"planning {file} for {', '.join(found.nodes)}")
    planned = distributions_as_found(
        file,
        found.placement,
        topology,
        statistics,
        run.path,
        engine=engine_between(topology, engine),
        **options,
    )
    sent = sum(one.bytes for route in planned[LATENCY].routes for one in route.transfers)
    if found.sent and sent > found.sent_bytes:
        say(
            f"it sends {sent} bytes in place of {found.sent_bytes}: the compiler joins a "
            "conversion of a sent tensor with its inverse"
        )
    say("compiling it, with a stage for each run of parts on one node")
    artifacts = build(file, planned, folder, machines=run.path, **options)
    metric = planned[LATENCY].metrics[LATENCY]
    planned = with_stage_times(planned, artifacts, engine_profile(engine).bare_us)
    planned.save(folder / DISTRIBUTIONS)
    origin = artifacts[planned.classes[topology.origin]]
    with deploy(
        planned, LATENCY, artifacts, engine=engine, security=security, address=address
    ) as deployed:
        say(f"answering {requests} requests")
        times_us = _times_us(deployed, requests)
        error = _error(deployed, origin)
    low, median, high = np.percentile(times_us, (25, 50, 75))
    made = Measurement(
        engine=engine,
        predicted_us=metric.predicted,
        spread_us=metric.spread,
        median_us=float(median),
        measured_spread_us=float(high - low) / 2,
        requests=requests,
        error=error,
        staged_us=planned[LATENCY].metrics[LATENCY].predicted,
    )
    found = replace(found, measured=(*found.measured, made))
    run.keep(found)
    return found


def _times_us(deployed: DeployedNetwork, requests: int) -> list[float]:
    """Times of single requests, microseconds; the first two are not counted."""
    inputs = random_inputs(deployed.inputs)
    times = []
    for _ in range(requests + 2):
        start_s = time.perf_counter()
        deployed(*inputs)
        times.append(1e6 * (time.perf_counter() - start_s))
    return times[2:]


def _error(deployed: DeployedNetwork, artifact: Path) -> float:
    """Largest relative L2 error of an output against the artifact as a whole."""
    whole, errors = load(artifact), []
    for seed in range(3):
        inputs = random_inputs(deployed.inputs, seed=seed)
        got = deployed(*inputs)
        results = got if isinstance(got, tuple) else (got,)
        wanted = whole.run_all(inputs)[: len(results)]
        errors += [rel_l2_err(*pair) for pair in zip(results, wanted, strict=True)]
    if not max(errors) <= TOLERANCE:
        raise LayoutselError(
            f"the deployed network gives other results than the whole one: relative L2 error "
            f"{max(errors):.2g}; expected at most {TOLERANCE:g}"
        )
    return max(errors)


def _check_machines(topology: Topology, engine: str) -> None:
    """Reject an unknown engine, and to emulate other machines on this one."""
    if engine not in ENGINES:
        raise unknown_engine(engine)
    if engine == RAY:
        return
    for node in topology.computing:
        if node.machine:
            raise LayoutselError(
                f"node {node.id!r}: got the machine file {node.machine}, and the engine "
                f"{engine!r} runs nodes on this machine. Deploy with --engine ray on nodes that "
                "have joined, or search for nodes without machine files"
            )
