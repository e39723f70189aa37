"""Topologies of the comparison: 8 to 64 nodes of modelled machines, and Helix's clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import helix
from machines import MACHINES

from layoutsel.cluster.topology import SCHEMA_VERSION, SWITCH, Header, Link, Node, Power, Topology

MESSAGE_US, BYTE_NS = 100.0, 0.3
"""Processor time of a message and of a byte at each end: assumed, see CLUSTER.md on Ray's hop."""
NJ_PER_BYTE = 20.0
"""Energy of a byte on a link: assumed."""
Make = Callable[[float], Topology]
"""Bytes of a network's weights → topology."""


def switched(
    counts: Mapping[str, int],
    *,
    gbps: float,
    rtt_us: float = 200.0,
    memory_bytes: float | None = None,
    racks: int = 1,
    uplink_gbps: float = 10.0,
) -> Topology:
    """Nodes around switches; several switches are joined by one more. The first node is the origin.

    Parameters
    ----------
    counts
        Number of nodes by machine.
    gbps, rtt_us
        Links of the nodes.
    memory_bytes
        Memory of each node; None for that of its machine.
    racks
        Number of switches with nodes, which take turns.
    uplink_gbps
        Links between switches.
    """
    names = [
        (f"{kind}_{number}", kind) for kind, count in counts.items() for number in range(count)
    ]
    nodes = [
        Node(
            id=name,
            machine=f"{kind}.json",
            memory_bytes=memory_bytes or MACHINES[kind].memory_bytes,
            power_w=Power(idle=MACHINES[kind].watts[0], busy=MACHINES[kind].watts[1]),
        )
        for name, kind in names
    ]
    switches = [f"switch{number}" for number in range(racks)]
    links = [
        Link(
            source=name,
            target=switches[number % racks],
            gbps=gbps,
            rtt_us=rtt_us / 2,
            cpu_us=MESSAGE_US,
            cpu_ns_per_byte=BYTE_NS,
            nj_per_byte=NJ_PER_BYTE,
        )
        for number, (name, _) in enumerate(names)
    ]
    if racks > 1:
        links += [
            Link(source=one, target="core", gbps=uplink_gbps, rtt_us=20.0, nj_per_byte=NJ_PER_BYTE)
            for one in switches
        ]
        switches.append("core")
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=SCHEMA_VERSION, origin=nodes[0].id),
        nodes=(*nodes, *(Node(id=name, kind=SWITCH) for name in switches)),
        links=tuple(links),
    )


MIXED = {"n100": 4, "i5": 2, "epyc": 1, "xeon": 1}
"""Machines of the mixed clusters, as proportions."""


def mixed(times: int, **options: float) -> Make:
    """`times` eight machines."""
    counts = {kind: times * count for kind, count in MIXED.items()}
    return lambda _: switched(counts, **options)  # type: ignore[arg-type]


def of_helix(file: Path) -> Make:
    """One of Helix's clusters; its origin is a server."""
    machines = {kind: f"{kind}.json" for kind in MACHINES} | {helix.ORIGIN: "xeon.json"}
    return lambda _: helix.read(file, machines)


def clusters(helix_folder: Path | None) -> dict[str, Make]:
    """All topologies by name; Helix's where its files are."""
    found: dict[str, Make] = {
        "8 mixed, 1 Gbit/s": mixed(1, gbps=1.0),
        "8 mixed, 100 Mbit/s": mixed(1, gbps=0.1),
        "8 equal, 10 Gbit/s": lambda _: switched({"i5": 8}, gbps=10.0),
        "8 small memories, 1 Gbit/s": lambda size: switched(
            {"n100": 6, "i5": 2}, gbps=1.0, memory_bytes=0.4 * size + 50e6
        ),
        "16 mixed, 10 Gbit/s": mixed(2, gbps=10.0),
        "16 small memories, 10 Gbit/s": lambda size: switched(
            {"n100": 8, "i5": 8}, gbps=10.0, memory_bytes=0.3 * size + 50e6
        ),
        "32 mixed, 1 Gbit/s": mixed(4, gbps=1.0, racks=4),
        "64 mixed, 10 Gbit/s": mixed(8, gbps=10.0, racks=4, uplink_gbps=40.0),
    }
    if helix_folder is not None and helix_folder.is_dir():
        for name, file in (
            ("Helix 10", "cluster10.ini"),
            ("Helix 24, three regions", "3cluster24.ini"),
            ("Helix 42", "cluster42.ini"),
        ):
            found[name] = of_helix(helix_folder / file)
    return found
