"""A model larger than the memory of a node, on two nodes and on one.

``PYTHONPATH=bench python -m cluster.memory_limit light:vgg19 --json bench/results/memory_limit.json`` (root). Emulated:
two network namespaces on one machine, each with a core, its own copy of the artifact, and a control group that limits
the memory of all its processes, pages of files included. The planner must refuse one such node, and name it and the
missing bytes. Then requests run on the two nodes, and on one node although it is too small. After the first request, each
node's limit becomes what Python, TVM and Ray hold on it, and the memory that the planner reckons with. Where that is
too little, the system drops pages of weights and reads them again for each request, or kills the process.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import layoutsel
from cluster.nodes import EmulatedNode
from cluster.ray_nodes import INSECURE, converse, ray_nodes, share_folders
from layoutsel import cluster
from layoutsel.benchmarking.cases import case_name
from layoutsel.cluster.deploying import deploy
from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.node_queues import ClusterLimits
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.planning.problem import ProblemError
from layoutsel.runtime.samples import random_inputs

NODES = ("edge", "srv")
HERE = "here"
"""Folder that is another one on each node."""
SHARE = 0.8
"""Memory for weights and tensors on each node, as a share of the artifact, unless it is given."""
START_BYTES = 2 << 30
"""Limit on the memory of a node until its programs run."""
REQUESTS = 20
LIMIT_S = 300.0
"""Limit of the requests on a node that is too small, seconds."""
PATIENT = ClusterLimits(least_s=LIMIT_S, request_s=LIMIT_S)
"""No deadline passes: a slow answer is a figure here."""


def topology(memory_bytes: float) -> Topology:
    """Two equal nodes with little memory."""
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin=NODES[0]),
        nodes=tuple(Node(id=node, threads=1, memory_bytes=memory_bytes) for node in NODES),
        links=(Link(source=NODES[0], target=NODES[1], gbps=1.0, rtt_us=200.0),),
    )


def alone(two: Topology, memory_bytes: float | None) -> Topology:
    """The first node, with another memory; None for any amount."""
    one = two.without(NODES[1])
    return replace(one, nodes=tuple(replace(n, memory_bytes=memory_bytes) for n in one.nodes))


def drive(folder: Path, name: str) -> None:
    """Answer requests with a distribution, as Ray's driver on the first node."""
    planned = Distributions.load(folder / f"{name}.json")
    artifacts = dict.fromkeys(planned.plans, folder / HERE / "network.so")
    expected = dict(np.load(folder / "expected.npz"))
    latencies, wrong = [], 0
    with deploy(
        planned, "latency", artifacts, engine="ray", security=INSECURE, limits=PATIENT
    ) as deployed:
        inputs = random_inputs(deployed.inputs)
        deployed(*inputs)
        ask("limit")
        deployed(*inputs)
        before = ask("memory")
        end = time.monotonic() + LIMIT_S
        while len(latencies) < REQUESTS and time.monotonic() < end:
            start = time.perf_counter()
            found = deployed(*inputs)
            latencies.append(1e3 * (time.perf_counter() - start))
            found = found if isinstance(found, tuple) else (found,)
            wrong += not all(map(np.array_equal, found, expected.values()))
        after = ask("memory")
    for node in after:
        taken = after[node].pop("taken_bytes") - before[node]["taken_bytes"]
        after[node]["taken_per_request_bytes"] = round(taken / len(latencies))
    result = {
        "requests": len(latencies),
        "wrong": wrong,
        "latency_ms": round(float(np.median(latencies)), 1),
        "nodes": after,
    }
    print(json.dumps({"result": result}), flush=True)


def ask(what: str) -> Any:
    """Have the outer program do something."""
    print(json.dumps({"ask": what}), flush=True)
    return json.loads(input())


def requests(folder: Path, name: str, memory_bytes: float) -> Mapping[str, Any]:
    """Requests on nodes of limited memory; the error if a node dies of them."""
    with ray_nodes(memory_bytes=START_BYTES) as emulation:
        for node in emulation.nodes:
            own_copy(node, folder)
        groups = {node.name: node.memory for node in emulation.nodes if node.memory}

        def memory() -> dict[str, Any]:
            return {node: group.statistics() for node, group in groups.items()}

        def limit() -> None:
            for group in groups.values():
                group.limit(group.statistics()["own_bytes"] + int(memory_bytes))

        program = [Path(__file__), "--driver", name, "--folder", folder]
        answers = {"memory": memory, "limit": limit}
        try:
            return converse(emulation.nodes[0], program, answers, 2 * LIMIT_S)
        except (RuntimeError, OSError) as error:
            return {"error": str(error), "nodes": memory()}


def own_copy(node: EmulatedNode, folder: Path) -> None:
    """Give a node a copy of the artifact: pages of a common file would count for the first reader."""
    own = folder / node.name
    own.mkdir(exist_ok=True)
    node.run(["mount", "--bind", own, folder / HERE])
    node.run(["cp", folder / "network.so", folder / HERE])
    node.run(["sync", folder / HERE / "network.so"])


def measure(model: Any, folder: Path, memory_bytes: float | None = None) -> dict[str, Any]:
    """Plan, compile, and run on two nodes and on one."""
    single = cluster.distribute(
        model, alone(topology(1e12), None), targets=["latency"], cost="roofline"
    )
    (plan,) = single.plans.values()
    file = layoutsel.compile_plan(model, plan).save(folder / "network.so")
    memory_bytes = memory_bytes or round(SHARE * file.stat().st_size)
    two = topology(memory_bytes)
    try:
        cluster.distribute(model, alone(two, memory_bytes), targets=["latency"], cost="roofline")
        raise SystemExit(f"one node of {memory_bytes} bytes is enough: give less")
    except ProblemError as error:
        refusal = str(error)
    planned = cluster.distribute(model, two, targets=["latency"], cost="roofline")
    single.save(folder / "one.json")
    planned.save(folder / "two.json")
    whole = layoutsel.load(file)
    results = whole.run_all(random_inputs(whole.inputs))[: len(whole.outputs)]
    np.savez(folder / "expected.npz", **{str(i): one for i, one in enumerate(results)})
    del whole
    (folder / HERE).mkdir()
    (best,) = planned.distributions
    return {
        "artifact_bytes": file.stat().st_size,
        "memory_bytes": memory_bytes,
        "refusal": refusal,
        "segments": [f"{one.node}: {len(one.atoms)} atoms" for one in best.routes[0].segments],
        "memory_predicted": best.metrics["memory"].predicted,
        "two": requests(folder, "two", memory_bytes),
        "one": requests(folder, "one", memory_bytes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-mb", type=float, help="memory of a node for weights and tensors")
    parser.add_argument("--driver", choices=("one", "two"))
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.driver:
        return drive(asked.folder, asked.driver)
    share_folders()
    with tempfile.TemporaryDirectory() as name:
        found = measure(asked.model, Path(name), asked.memory_mb and 1e6 * asked.memory_mb)
    result = {
        "emulated": "two network namespaces on one machine, one core each, memories of control groups",
        "load_average": os.getloadavg()[0],
        "model": case_name(asked.model),
        **found,
    }
    asked.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
