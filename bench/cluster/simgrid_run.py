"""Executes a distribution in SimGrid: ``simgrid_run.py CASE.json``, by Debian's Python, which alone has ``simgrid``.

Reads the document as JSON, without this project's code: that makes it a second opinion. Its unit of time is 1 µs. SimGrid
divides the rate of a link among the messages on it; the simulator of this project serves them in order.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from simgrid import Actor, Comm, Engine, Host, Mutex, Semaphore, this_actor

CONFIGURATION = (
    "network/model:CM02",
    "network/bandwidth-factor:1",
    "network/latency-factor:1",
    "network/weight-S:0",
    "network/TCP-gamma:0",
    "network/crosstraffic:0",
    "surf/precision:1e-9",
)
"""Messages take the time of their bytes on the slowest link and the links' delays, without TCP's effects."""
Json = dict[str, Any]


def platform(topology: Json) -> str:
    """The topology as a SimGrid platform whose messages take the fewest links."""
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">',
        '<platform version="4.1"><zone id="net" routing="Floyd">',
    ]
    for node in topology["nodes"]:
        kind = "router" if node.get("kind") == "switch" else 'host speed="1f"'
        name, _, speed = kind.partition(" ")
        lines.append(f"<{name} id={quoteattr(node['id'])} {speed}/>")
    routes, wires = [], {}
    for link in topology["links"]:
        for source, target in ((link["source"], link["target"]), (link["target"], link["source"])):
            half = link.get("duplex") == "half"
            wire = f"{link['source']}-{link['target']}" if half else f"{source}>{target}"
            rate, delay = link["gbps"] * 125, link["rtt_us"] / 2
            wires[wire] = (
                f'<link id={quoteattr(wire)} bandwidth="{rate!r}Bps" latency="{delay!r}s"/>'
            )
            routes.append(
                f'<route src={quoteattr(source)} dst={quoteattr(target)} symmetrical="NO">'
                f"<link_ctn id={quoteattr(wire)}/></route>"
            )
    return "\n".join([*lines, *wires.values(), *routes, "</zone></platform>"])


class Node:
    """A processor that serves one job at a time, in order of arrival."""

    def __init__(self) -> None:
        self._mutex = Mutex()

    def work(self, us: float) -> None:
        """Wait for the processor and occupy it."""
        if us:
            self._mutex.lock()
            this_actor.sleep_for(us)
            self._mutex.unlock()


class Execution:
    """Requests in a closed loop."""

    def __init__(self, case: Json) -> None:
        self.case = case
        self.topology, self.routes = case["topology"], case["routes"]
        self.origin = self.topology["graph"]["origin"]
        self.nodes = {n["id"]: Node() for n in self.topology["nodes"] if n.get("kind") != "switch"}
        self.ends: list[tuple[float, float]] = []
        self._credits = [0.0] * len(self.routes)
        self._begun = 0

    def client(self) -> None:
        """Run one request after another until all have begun."""
        while self._begun < self.case["requests"]:
            self._begun += 1
            start = Engine.clock
            self.request(self._next_route())
            self.ends.append((start, Engine.clock))

    def request(self, route: Json) -> None:
        """Run one request: an actor for each segment and each transfer, which wait for tensors."""
        home = {tensor: s["node"] for s in route["segments"] for tensor in s["outputs"]}
        outputs = [tensor for tensor in home if tensor.startswith("output.")]
        arrived: dict[tuple[str, str], Semaphore] = {}

        def place(tensor: str, node: str) -> Semaphore:
            return arrived.setdefault((tensor, node), Semaphore(0))

        def start(name: str, node: str, body: Callable[[], None]) -> None:
            Actor.create(name, Host.by_name(node), body)

        def wait(tensor: str, node: str) -> None:
            if tensor in home or node != self.origin:
                place(tensor, node).acquire()
                place(tensor, node).release()  # for others that wait for it

        def run(segment: Json) -> None:
            for tensor in segment["inputs"]:
                wait(tensor, segment["node"])
            self.nodes[segment["node"]].work(segment["us"])
            for tensor in segment["outputs"]:
                place(tensor, segment["node"]).release()

        def send(transfer: Json) -> None:
            source, destination = transfer["source"], transfer["destination"]
            wait(transfer["tensor"], source)
            self.nodes[source].work(self._processing(source, transfer["bytes"]))
            Comm.sendto(Host.by_name(source), Host.by_name(destination), transfer["bytes"])
            self.nodes[destination].work(self._processing(destination, transfer["bytes"]))
            place(transfer["tensor"], destination).release()

        for segment in route["segments"]:
            start(segment["id"], segment["node"], lambda segment=segment: run(segment))
        for transfer in route["transfers"]:
            start(transfer["tensor"], transfer["source"], lambda transfer=transfer: send(transfer))
        for tensor in outputs:
            place(tensor, self.origin).acquire()

    def _processing(self, node: str, size: int) -> float:
        """Work of a message at one end; every node of the cases has one link."""
        (link,) = (one for one in self.topology["links"] if node in (one["source"], one["target"]))
        return float(link.get("cpu_us", 0.0) + link.get("cpu_ns_per_byte", 0.0) * size / 1e3)

    def _next_route(self) -> Json:
        """Deficit round robin."""
        for number, route in enumerate(self.routes):
            self._credits[number] += route["weight"]
        chosen = max(range(len(self.routes)), key=self._credits.__getitem__)
        self._credits[chosen] -= sum(route["weight"] for route in self.routes)
        return self.routes[chosen]


def main() -> None:
    """Print start and end of every request."""
    case = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    engine = Engine(
        ["simgrid_run", *(f"--cfg={one}" for one in CONFIGURATION), "--log=root.thres:error"]
    )
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(platform(case["topology"]))
        file.flush()
        engine.load_platform(file.name)
    execution = Execution(case)
    for number in range(case["in_flight"]):
        Actor.create(f"client{number}", Host.by_name(execution.origin), execution.client)
    engine.run()
    print(json.dumps(execution.ends))


if __name__ == "__main__":
    main()
