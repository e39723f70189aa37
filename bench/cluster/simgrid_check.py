"""A second opinion on the simulator: random distributions, simulated here and executed in SimGrid.

``apt install python3-simgrid``, then ``python bench/cluster/simgrid_check.py --json bench/results/cluster_simgrid.json``. Both
read one document; SimGrid's side (simgrid_run.py) shares no code with this project.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from layoutsel import documents
from layoutsel.benchmarking.compare import save
from layoutsel.cluster.distribution import (
    Distribution,
    Distributions,
    Route,
    Segment,
    Target,
    Transfer,
)
from layoutsel.cluster.simulate import Load, simulate
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import SWITCH, Header, Link, Node, Topology

PYTHON = Path("/usr/bin/python3")
"""Debian's Python, which Debian's SimGrid is installed for."""
CASES, REQUESTS, TIME_LIMIT_S = 20, 60, 120.0
IN_FLIGHT = (1, 2, 4, 8)
ORIGIN = "n0"


def absent() -> str | None:
    """Why SimGrid cannot be asked; None if it can."""
    if not PYTHON.exists():
        return f"{PYTHON} does not exist"
    done = subprocess.run(
        [PYTHON, "-c", "import simgrid"], capture_output=True, check=False, timeout=TIME_LIMIT_S
    )
    return (
        "SimGrid is not installed (Debian: apt install python3-simgrid)"
        if done.returncode
        else None
    )


def random_case(chance: random.Random) -> Distributions:
    """One to three routes of random graphs over up to six nodes behind a switch."""
    count = chance.randint(2, 6)
    names = [f"n{number}" for number in range(count)]
    links = tuple(
        Link(
            source=name,
            target="switch",
            gbps=chance.choice([0.1, 1.0, 10.0]),
            rtt_us=chance.choice([50.0, 500.0]),
            duplex=chance.choice(["full", "full", "half"]),
            cpu_us=chance.choice([0.0, 20.0]),
            cpu_ns_per_byte=chance.choice([0.0, 1.0]),
        )
        for name in names
    )
    return Distributions(
        schema_version=1,
        model_name="random",
        model_hash="",
        topology=Topology(
            directed=False,
            multigraph=False,
            graph=Header(schema_version=1, origin=ORIGIN),
            nodes=(*(Node(id=name) for name in names), Node(id="switch", kind=SWITCH)),
            links=links,
        ),
        statistics=Statistics(),
        classes={},
        plans={},
        distributions=(
            Distribution(
                target=Target(name="throughput"),
                routes=tuple(random_route(chance, names) for _ in range(chance.randint(1, 3))),
                metrics={},
                solver="random",
                time_s=0.0,
            ),
        ),
    )


def random_route(chance: random.Random, names: list[str]) -> Route:
    """Segments that read one or two earlier ones; the last reads all that nobody has read."""
    count = chance.randint(2, 5)
    home: dict[str, str] = {}
    unread: dict[str, None] = {}
    segments = []
    for number in range(count):
        known = list(home)
        reads = chance.sample(known, min(len(known), chance.randint(1, 2))) or ["input.0"]
        reads = list(unread) if number == count - 1 else reads
        for tensor in reads:
            unread.pop(tensor, None)
        made = "output.0" if number == count - 1 else f"p{number}.0"
        unread[made] = None
        home[made] = chance.choice(names)
        segments.append(
            Segment(
                id=f"p{number}",
                node=home[made],
                atoms=(),
                subgraphs=(),
                inputs=tuple(reads),
                outputs=(made,),
                us=round(chance.uniform(500, 20_000), 1),
                spread_us=0.0,
            )
        )
    sizes = {tensor: chance.randint(10_000, 1_000_000) for tensor in ("input.0", *home)}
    wanted = [(tensor, one.node) for one in segments for tensor in one.inputs]
    transfers = tuple(
        Transfer(
            tensor=tensor,
            source=home.get(tensor, ORIGIN),
            destination=node,
            bytes=sizes[tensor],
            us=0.0,
        )
        for tensor, node in dict.fromkeys([*wanted, ("output.0", ORIGIN)])
        if home.get(tensor, ORIGIN) != node
    )
    return Route(weight=chance.uniform(0.2, 1.0), segments=tuple(segments), transfers=transfers)


def by_simgrid(made: Distributions, in_flight: int, requests: int) -> list[tuple[float, float]]:
    """Start and end of every request in SimGrid, microseconds."""
    case = {
        "topology": documents.to_json(made.topology),
        "routes": documents.to_json(made.distributions[0].routes),
        "in_flight": in_flight,
        "requests": requests,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(case, file)
        file.flush()
        done = subprocess.run(
            [PYTHON, Path(__file__).with_name("simgrid_run.py"), file.name],
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=True,
        )
    return [(start, end) for start, end in json.loads(done.stdout)]


def row(seed: int, in_flight: int) -> dict[str, Any]:
    """One case, by both."""
    made = random_case(random.Random(seed))
    mine = simulate(made, made.distributions[0], Load(requests=REQUESTS, in_flight=in_flight))
    theirs = by_simgrid(made, in_flight, REQUESTS)
    makespan_us = max(end for _, end in theirs)
    latency_us = sum(end - start for start, end in theirs) / len(theirs)
    return {
        "seed": seed,
        "nodes": len(made.topology.nodes) - 1,
        "routes": len(made.distributions[0].routes),
        "in_flight": in_flight,
        "makespan_us": round(mine.makespan_us, 1),
        "simgrid_makespan_us": round(makespan_us, 1),
        "makespan_ratio": round(mine.makespan_us / makespan_us, 4),
        "latency_us": round(mine.mean_us, 1),
        "simgrid_latency_us": round(latency_us, 1),
        "latency_ratio": round(mine.mean_us / latency_us, 4),
    }


def main() -> None:
    """Print and save the rows of all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    if reason := absent():
        print(f"skipped: {reason}")
        return
    found = []
    for seed in range(arguments.cases):
        made = row(seed, IN_FLIGHT[seed % len(IN_FLIGHT)])
        print(*made.values(), sep="\t", flush=True)
        found.append(made)
    save(arguments.json, found)
    worst = max(abs(made["makespan_ratio"] - 1) for made in found)
    print(f"largest difference of makespans: {worst:.2%}")


if __name__ == "__main__":
    main()
