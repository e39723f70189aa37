"""``layoutsel cluster join``, ``probe`` and ``stats``: nodes join, and are measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from layoutsel.cluster.ray_settings import Security
    from layoutsel.cluster.topology import Topology

TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="Token that all nodes share.", show_default=False
    ),
]
TlsOption = Annotated[
    Path | None,
    typer.Option(
        "--tls",
        metavar="DIR",
        help="Folder with tls.crt, tls.key and ca.crt: encrypted connections.",
        show_default=False,
    ),
]
InsecureFlag = Annotated[
    bool,
    typer.Option(
        "--insecure", help="No token, although other machines reach the nodes: closed networks."
    ),
]
AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Head of the cluster.",
        show_default="this machine's",
    ),
]
TopologyArgument = Annotated[
    Path, typer.Argument(metavar="TOPOLOGY.json", help="Nodes and links.", show_default=False)
]
OutputOption = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="File to write.", show_default=False),
]


def join(
    node: Annotated[
        str, typer.Argument(metavar="NODE", help="Id in the topology.", show_default=False)
    ],
    head: Annotated[bool, typer.Option("--head", help="Begin a cluster on this machine.")] = False,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="HOST:PORT", help="Head of the cluster.", show_default=False
        ),
    ] = None,
    own_address: Annotated[
        str | None,
        typer.Option(
            "--own-address",
            metavar="IP",
            help="Address of this machine that other nodes reach.",
            show_default="the one towards the head; 127.0.0.1 with --head",
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of a head.")] = 6379,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, metavar="N", help="Threads of segments.", show_default="all cores"
        ),
    ] = None,
    store_mb: Annotated[
        int,
        typer.Option(
            "--store",
            min=80,
            metavar="MB",
            help="Memory for tensors on their way.",
            show_default=True,
        ),
    ] = 200,
    token_file: TokenOption = None,
    tls: TlsOption = None,
    insecure: InsecureFlag = False,
) -> None:
    """Make this machine a node of a cluster of Ray; 'ray stop' ends it."""
    import os

    from layoutsel.cluster.joining import Joining, join_cluster, way_to

    if head == (address is not None):
        raise LayoutselError("got no way to a cluster, or two; expected --head or --address")
    own = own_address or ("127.0.0.1" if address is None else way_to(address))
    security = security_of(token_file, tls, insecure)
    security.check(own, *([address] if address is not None else []))
    joining = Joining(
        node=node,
        own_address=own,
        head=address,
        port=port,
        threads=threads or len(os.sched_getaffinity(0)),
        store_bytes=store_mb << 20,
    )
    join_cluster(joining, security)
    place = f"at {own}:{port}" if head else f"through {address}"
    terminal.show_text(f"node {node!r} has joined {place} with {joining.threads} threads")


def probe(
    topology: TopologyArgument,
    output: OutputOption,
    address: AddressOption = "auto",
    token_file: TokenOption = None,
    tls: TlsOption = None,
    insecure: InsecureFlag = False,
) -> None:
    """Measure the links between nodes that have joined, through the engine."""
    check_output(output)
    from layoutsel.cluster.probing import Probes, with_links

    found, nodes = _nodes(topology)
    measured = []
    with Probes(nodes, address, security_of(token_file, tls, insecure)) as probes:
        for link in probes.links():
            measured.append(link)
            terminal.show_text(
                f"{link.nodes[0]} – {link.nodes[1]}: {link.us:.0f} µs + "
                f"{1e3 * link.us_per_byte:.2f} ns per byte; processors {link.cpu_us:.0f} µs + "
                f"{link.cpu_ns_per_byte:.2f} ns per byte at each end"
            )
    with_links(found, measured).save(output)


def stats(
    topology: TopologyArgument,
    output: OutputOption,
    address: AddressOption = "auto",
    token_file: TokenOption = None,
    tls: TlsOption = None,
    insecure: InsecureFlag = False,
) -> None:
    """Write the load and free memory of nodes that have joined; 'cluster run' adds segments."""
    check_output(output)
    from layoutsel.cluster.probing import Probes
    from layoutsel.cluster.statistics import Statistics

    _, nodes = _nodes(topology)
    with Probes(nodes, address, security_of(token_file, tls, insecure)) as probes:
        found = Statistics(nodes=probes.states())
    found.save(output)
    for node, state in found.nodes.items():
        terminal.show_text(
            f"{node}: {100 * state.others_busy:.0f} % busy with other work, "
            f"{(state.free_bytes or 0) / 1e9:.1f} GB free"
        )


def security_of(token_file: Path | None, tls: Path | None, insecure: bool) -> Security:
    """Protection of a cluster, from its options."""
    from layoutsel.cluster.ray_settings import Security

    return Security(token_file=token_file, tls=tls, is_insecure=insecure)


def _nodes(file: Path) -> tuple[Topology, list[str]]:
    from layoutsel.cluster.topology import Topology

    topology = Topology.load(file)
    return topology, [node.id for node in topology.computing]


COMMANDS: dict[str, Callable[..., None]] = {"join": join, "probe": probe, "stats": stats}
"""Functions of the commands on nodes, by name."""
