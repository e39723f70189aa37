"""Throughput of two nodes of one core each against one core, through a fast and a slow link.

``PYTHONPATH=bench python -m cluster.two_nodes light:resnet50 … --json bench/results/two_nodes.json`` (root). Emulated: two
network namespaces on one machine. The link is probed through Ray, the network planned for throughput with measured
times of one thread. Then runs of the planned distribution alternate with runs of the same artifact alone in a process on the
first core, without Ray. Results are compared with that process's.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import layoutsel
from cluster.ray_nodes import INSECURE, acts, converse, ray_nodes, share_folders
from layoutsel import cluster
from layoutsel.benchmarking.cases import case_name
from layoutsel.cluster.deploying import deploy
from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.probing import Probes, with_links
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.runtime.samples import random_inputs

NODES = ("edge", "srv")
LINKS = {"1 Gbit/s": (1.0, 0.1), "50 Mbit/s": (0.05, 1.0)}
"""Rate and delay of the emulated links."""
ROUNDS, SECONDS = 5, 4.0
"""Rounds of both contenders in turns, and about the duration of each."""
TARGETS = ("throughput", "latency")


def topology() -> Topology:
    """Two equal nodes; the link is measured later."""
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin=NODES[0]),
        nodes=tuple(Node(id=node, threads=1) for node in NODES),
        links=(Link(source=NODES[0], target=NODES[1], gbps=1.0, rtt_us=200.0),),
    )


def probe(folder: Path) -> None:
    """Write the topology with the measured link, as Ray's driver on the first node."""
    with Probes(NODES, "auto", INSECURE) as probes:
        with_links(topology(), list(probes.links())).save(folder / "topology.json")
    print(json.dumps({"result": 1}), flush=True)


def race(folder: Path) -> None:
    """Time the distribution and the artifact alone in turns, as Ray's driver on the first node."""
    planned = Distributions.load(folder / "planned.json")
    artifact = folder / "network.so"
    alone = layoutsel.load(artifact)
    inputs = random_inputs(alone.inputs)
    expected = alone.run_all(inputs)[: len(alone.outputs)]
    start = time.perf_counter()
    for _ in range(3):
        alone.run_all(inputs)
    count = max(8, round(3 * SECONDS / (time.perf_counter() - start)))
    rates: dict[str, list[float]] = {"alone": [], "cluster": []}
    latencies: dict[str, list[float]] = {"alone": [], "cluster": []}
    wrong = 0
    artifacts = dict.fromkeys(planned.plans, artifact)
    with deploy(planned, "throughput", artifacts, engine="ray", security=INSECURE) as deployed:
        list(deployed.stream([inputs] * 8))
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(count):
                alone.run_all(inputs)
            rates["alone"].append(count / (time.perf_counter() - start))
            start = time.perf_counter()
            results = list(deployed.stream([inputs] * (2 * count)))
            rates["cluster"].append(2 * count / (time.perf_counter() - start))
            wrong += sum(not same(one, expected) for one in results)
    with deploy(planned, "latency", artifacts, engine="ray", security=INSECURE) as deployed:
        deployed(*inputs)
        for _ in range(count):
            for name, call in (("alone", alone.run_all), ("cluster", lambda x: deployed(*x))):
                start = time.perf_counter()
                call(inputs)
                latencies[name].append(1e3 * (time.perf_counter() - start))
    found = {"rates_hz": rates, "wrong": wrong, "latencies_ms": latencies}
    print(json.dumps({"result": found}), flush=True)


def same(found: Any, expected: list[np.ndarray]) -> bool:
    """True if all results are equal, bit by bit."""
    found = found if isinstance(found, tuple) else (found,)
    return all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def rows(model: str, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each link."""
    for name, (gbps, delay_ms) in LINKS.items():
        with ray_nodes(gbps=gbps, delay_ms=delay_ms) as emulation:
            first, answers = emulation.nodes[0], acts(emulation)
            converse(first, [Path(__file__), "--driver", "probe", "--folder", folder], answers, 300)
            probed = Topology.load(folder / "topology.json")
            planned = cluster.distribute(model, probed, targets=TARGETS, cost="auto")
            planned.save(folder / "planned.json")
            (plan,) = planned.plans.values()
            layoutsel.compile_plan(model, plan).save(folder / "network.so")
            found = converse(
                first, [Path(__file__), "--driver", "race", "--folder", folder], answers, 900
            )
        medians = {one: float(np.median(rates)) for one, rates in found["rates_hz"].items()}
        latencies = {one: float(np.median(ms)) for one, ms in found["latencies_ms"].items()}
        best, quick = planned["throughput"], planned["latency"]
        (link,) = probed.links
        yield {
            "model": case_name(model),
            "link": name,
            "probed_gbps": round(link.gbps, 4),
            "probed_rtt_us": round(link.rtt_us, 1),
            "routes": [
                [round(route.weight, 3), *(f"{s.node}:{len(s.atoms)}" for s in route.segments)]
                for route in best.routes
            ],
            "predicted_hz": round(best.metrics["throughput"].predicted, 2),
            "bound_hz": round(best.metrics["throughput"].bound or 0.0, 2),
            "cluster_hz": round(medians["cluster"], 2),
            "alone_hz": round(medians["alone"], 2),
            "ratio": round(medians["cluster"] / medians["alone"], 3),
            "ratios": [
                round(one / other, 3)
                for one, other in zip(
                    *(found["rates_hz"][n] for n in ("cluster", "alone")), strict=True
                )
            ],
            "wrong": found["wrong"],
            "latency_predicted_ms": round(quick.metrics["latency"].predicted / 1e3, 3),
            "latency_cluster_ms": round(latencies["cluster"], 3),
            "latency_alone_ms": round(latencies["alone"], 3),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--driver", choices=("probe", "race"))
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.driver:
        return {"probe": probe, "race": race}[asked.driver](asked.folder)
    folder = asked.json.with_suffix("").resolve()
    folder.mkdir(exist_ok=True)
    share_folders()
    found = []
    for model in asked.models:
        for row in rows(model, folder):
            print(row, flush=True)
            found.append(row)
            result = {
                "emulated": "two network namespaces on one machine, one core each",
                "load_average": os.getloadavg()[0],
                "rows": found,
            }
            asked.json.write_text(json.dumps(result, indent=1) + "\n")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


if __name__ == "__main__":
    main()
