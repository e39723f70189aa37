"""Scenarios of a driver on node edge. Run as a program there: ``ray_scenarios.py SCENARIO MODEL ONNX_SEED``.

It prints lines of JSON: ``{"ask": "kill worker"}`` waits for a line of input, ``{"result": …}`` is the last one.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from divided import CLASS, distribution, distributions, image, network, plan_in_atoms

import layoutsel
from layoutsel.cluster.deployed_network import DeployedNetwork
from layoutsel.cluster.deploying import deploy
from layoutsel.cluster.engine import Announced, NodeRefused
from layoutsel.cluster.node_queues import ClusterLimits
from layoutsel.cluster.ray_engine import RayEngine
from layoutsel.cluster.ray_settings import Security

NODES = ("edge", "srv")
EDGE, SRV = 4 * ("edge",), 4 * ("srv",)
PIPELINE = ("edge", "srv", "srv", "edge")
INSECURE = Security(is_insecure=True)


def ask(what: str) -> Any:
    """Have the test do something."""
    print(json.dumps({"ask": what}), flush=True)
    return json.loads(sys.stdin.readline())


def deployed(model: Path, routes, without=None, **options) -> DeployedNetwork:
    plan = plan_in_atoms(network())
    document = distributions(plan, distribution(plan.stages, routes, without), NODES)
    return deploy(document, "latency", {CLASS: model}, engine="ray", security=INSECURE, **options)


def check(results, model) -> int:
    """Number of results; a wrong one ends the scenario."""
    count = 0
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(result, model(image(seed)))
        count += 1
    return count


def equal(model: Path) -> Any:
    """The file is not on the other node, and travels there."""
    own = Path("/tmp/ray/own.so")
    shutil.copy(model, own)
    whole = layoutsel.load(own)
    with deployed(own, {PIPELINE: 0.5, SRV: 0.25, EDGE: 0.25}) as network_:
        answers = check(network_.stream(image(seed) for seed in range(40)), whole)
        network_.switch(distribution(plan_in_atoms(network()).stages, {SRV: 1}))
        check([network_(image(0))], whole)
        statistics = network_.statistics()
        network_.save_trace(Path("/tmp/ray/trace.json"))
    trace = json.loads(Path("/tmp/ray/trace.json").read_text())
    rows = [one["args"]["name"] for one in trace["traceEvents"] if one["name"] == "thread_name"]
    return {"answers": answers, "nodes": sorted(statistics.nodes), "rows": sorted(rows)}


def faults(model: Path) -> Any:
    """Each fault in the middle of a stream."""
    whole = layoutsel.load(model)
    found = {}
    without = {"srv": EDGE, "edge": SRV}
    with deployed(model, {PIPELINE: 1}, without, limits=ClusterLimits(rtt_s=0.01)) as network_:
        check([network_(image(0))], whole)
        for fault, repair in (
            ("kill worker srv", ""),
            ("cut", "heal"),
            ("kill node", "start node"),
        ):
            before = dict(network_.counts)

            def requests(fault: str = fault):
                for seed in range(60):
                    if seed == 20:
                        ask(fault)
                    yield image(seed)

            answers = check(network_.stream(requests()), whole)
            latencies = [
                one.us for one in network_.timeline.events[-1000:] if hasattr(one, "attempts")
            ][-60:]
            found[fault] = {
                "answers": answers,
                "longest_ms": round(max(latencies) / 1e3, 1),
                "counts": {k: v - before.get(k, 0) for k, v in network_.counts.items()},
            }
            if repair:
                ask(repair)
            end = time.monotonic() + 60
            while network_.controller.quarantined and time.monotonic() < end:
                time.sleep(0.1)
            found[fault]["returned"] = not network_.controller.quarantined
            if not found[fault]["returned"] and repair == "heal":
                ask("start node")
                end = time.monotonic() + 90
                while network_.controller.quarantined and time.monotonic() < end:
                    time.sleep(0.1)
                found[fault]["returned"] = not network_.controller.quarantined
    return found


def refused(model: Path) -> Any:
    """A wrong digest and a missing node are errors that name the node."""
    engine = RayEngine(dict.fromkeys((*NODES, "moon"), 1), security=INSECURE)
    errors = []
    for node, artifact in (
        ("srv", Announced(path=model, sha256="0" * 64)),
        ("moon", Announced.of(model)),
    ):
        try:
            engine.load(node, artifact, 20 if node == "srv" else 3)
        except layoutsel.LayoutselError as error:
            errors.append(f"{type(error).__name__}: {error}")
    engine.close()
    assert NodeRefused
    return errors


if __name__ == "__main__":
    scenario, model = sys.argv[1:]
    print(json.dumps({"result": globals()[scenario](Path(model))}), flush=True)
