"""Requests through faults and changes: how many are lost or wrong, and how long the slowest waits.

``PYTHONPATH=bench:tests:tests/cluster python -m cluster.faults --json bench/results/cluster_faults.json`` (root).
Two emulated nodes, one core each, 1 Gbit/s and 0.2 ms round trip. A worker, a node or the link fails at the start of each segment in turn; every answer is
compared with that of the whole model. Then 10,000 requests at changing rates, with other work on a node and a change of
the distribution every second.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from divided import CLASS, distribution, distributions, image, network, plan_in_atoms

import layoutsel
from cluster.ray_nodes import acts, busy, converse, ray_nodes, share_folders
from layoutsel.cluster import health
from layoutsel.cluster.deployed_network import DeployedNetwork
from layoutsel.cluster.deploying import deploy
from layoutsel.cluster.engine import NodeTensor, SegmentRun, Work
from layoutsel.cluster.events import RequestAnswered
from layoutsel.cluster.ray_engine import RayEngine
from layoutsel.cluster.ray_settings import Security

NODES = ("edge", "srv")
EDGE, SRV = 4 * ("edge",), 4 * ("srv",)
PIPELINE = ("edge", "srv", "srv", "edge")
WITHOUT = {"srv": EDGE, "edge": SRV}
REPEATS = {"kill worker": 2, "cut": 1, "kill node": 1}
"""Number of faults of each kind at each segment."""
REQUESTS = 10_000
BEFORE, AFTER = 30, 60
"""Requests before and after a fault."""
QUARANTINE_S = 2.0
"""Longest quarantine here, seconds: faults follow each other, and would double it each time."""
RETURN_S = 120.0
"""Longest wait for the return of a node, seconds."""


def ask(what: str) -> Any:
    """Have the outer program do something."""
    print(json.dumps({"ask": what}), flush=True)
    return json.loads(sys.stdin.readline())


class Trap(RayEngine):
    """Ray, with a fault at the start of a segment."""

    fault = segment = ""

    def start(self, work: Work, inputs: Mapping[str, NodeTensor]) -> SegmentRun:
        """Start the segment, and then let the fault happen."""
        run = super().start(work, inputs)
        if work.segment == self.segment:
            self.segment = ""
            ask(f"{self.fault} {work.node}" if self.fault == "kill worker" else self.fault)
        return run


def check(results: Iterator[Any], model: Any) -> tuple[int, int]:
    """Number of results, and of wrong ones."""
    count = wrong = 0
    for seed, result in enumerate(results):
        count += 1
        wrong += not np.array_equal(result, model(image(seed % 50)))
    return count, wrong


def latencies_ms(deployed: DeployedNetwork, count: int) -> list[float]:
    """Latencies of the latest requests."""
    answers = [one for one in deployed.timeline.events if isinstance(one, RequestAnswered)]
    return [one.us / 1e3 for one in answers[-count:]]


def return_of_all(deployed: DeployedNetwork, limit_s: float) -> bool:
    """Wait until no node is in quarantine."""
    end = time.monotonic() + limit_s
    while deployed.controller.quarantined and time.monotonic() < end:
        time.sleep(0.05)
    return not deployed.controller.quarantined


def faults(deployed: DeployedNetwork, engine: Trap, model: Any) -> Iterator[dict[str, Any]]:
    """Rows of the faults at each segment."""
    for fault, repeats in REPEATS.items():
        for segment in ("s0", "s1", "s2"):
            for repeat in range(repeats):
                yield one_fault(deployed, engine, model, fault, segment) | {"repeat": repeat}


def one_fault(
    deployed: DeployedNetwork, engine: Trap, model: Any, fault: str, segment: str
) -> dict[str, Any]:
    """Requests before, through and after a fault; then the repair."""

    def requests() -> Iterator[Any]:
        for number in range(BEFORE + AFTER):
            if number == BEFORE:
                engine.fault, engine.segment = fault, segment
            yield image(number % 50)

    failures = deployed.counts["failures"]
    count, wrong = check(deployed.stream(requests()), model)
    longest = max(latencies_ms(deployed, count))
    usual = float(np.median(latencies_ms(deployed, count)))
    repairs = {"cut": ["heal", "start node"], "kill node": ["start node"]}.get(fault, [])
    for repair in repairs:
        ask(repair)
        if return_of_all(deployed, 20 if repair == "heal" else RETURN_S):
            break
    returned = return_of_all(deployed, RETURN_S)
    return {
        "fault": fault,
        "segment": segment,
        "answers": count,
        "wrong": wrong,
        "lost": BEFORE + AFTER - count + deployed.counts["failures"] - failures,
        "median_ms": round(usual, 1),
        "longest_ms": round(longest, 1),
        "returned": returned,
    }


def changes(deployed: DeployedNetwork, model: Any) -> dict[str, Any]:
    """Many requests at changing rates and loads, with a change of the distribution every second."""
    stages = plan_in_atoms(network()).stages
    ways = [{PIPELINE: 1.0}, {EDGE: 0.5, SRV: 0.5}, {SRV: 1.0}, {EDGE: 1.0}]
    begin = next_s = time.monotonic()
    before = dict(deployed.counts)
    epochs, gaps = 0, []

    def requests() -> Iterator[Any]:
        nonlocal epochs, next_s
        for number in range(REQUESTS):
            if number % 2000 == 1000:
                ask("load on")
            elif number % 2000 == 1999:
                ask("load off")
            if time.monotonic() > next_s:
                next_s += 1.0
                deployed.controller.switch(distribution(stages, ways[epochs % len(ways)], WITHOUT))
                epochs += 1
            pause_s = (0.0, 0.002, 0.005)[number // 500 % 3]
            if pause_s:
                time.sleep(pause_s)
            yield image(number % 50)

    def timed() -> Iterator[Any]:
        last_s = time.monotonic()
        for result in deployed.stream(requests()):
            gaps.append(time.monotonic() - last_s)
            yield result
            last_s = time.monotonic()

    count, wrong = check(timed(), model)
    counts = {name: value - before.get(name, 0) for name, value in deployed.counts.items()}
    return {
        "requests": REQUESTS,
        "answers": count,
        "wrong": wrong,
        "epochs": epochs,
        "seconds": round(time.monotonic() - begin, 1),
        "longest_gap_ms": round(1e3 * max(gaps), 1),
        "p99_gap_ms": round(1e3 * float(np.quantile(gaps, 0.99)), 1),
        "counts": counts,
    }


def driver(file: Path) -> None:
    """Measure, as Ray's driver on node edge."""
    health.LONGEST_S = QUARANTINE_S
    plan = plan_in_atoms(network())
    stages = plan.stages
    document = distributions(plan, distribution(stages, {PIPELINE: 1}, WITHOUT), NODES)
    engine = Trap(dict.fromkeys(NODES, 1), security=Security(is_insecure=True))
    model = layoutsel.load(file)
    with deploy(document, "latency", {CLASS: file}, engine=engine) as deployed:
        check(deployed.stream(image(seed) for seed in range(50)), model)
        rows = list(faults(deployed, engine, model))
        found = {"faults": rows, "changes": changes(deployed, model)}
    print(json.dumps({"result": found}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--driver", type=Path)
    arguments = parser.parse_args()
    if arguments.driver:
        return driver(arguments.driver)
    file = arguments.json.with_suffix(".so")
    layoutsel.compile_plan(network(), plan_in_atoms(network())).save(file)
    share_folders()
    before = os.getloadavg()[0]
    with ray_nodes() as emulation, busy(emulation.nodes[-1]) as load:
        program = [Path(__file__), "--driver", file]
        found = converse(emulation.nodes[0], program, acts(emulation) | load, 1500)
        relay = emulation.tell("stats")
    file.unlink()
    longest = [row["longest_ms"] for row in found["faults"]]
    result = {
        "emulated": "two network namespaces on one machine, one core each, 1 Gbit/s, 0.2 ms",
        "load_average": [before, os.getloadavg()[0]],
        "relay_cpu_s": relay["cpu_s"],
        "lost": sum(row["lost"] for row in found["faults"]),
        "wrong": sum(row["wrong"] for row in found["faults"]),
        "p99_recovery_ms": round(float(np.quantile(longest, 0.99)), 1),
        **found,
    }
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print({name: value for name, value in result.items() if name != "faults"})


if __name__ == "__main__":
    main()
