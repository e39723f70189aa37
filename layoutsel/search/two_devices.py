"""Topologies of two devices and the link between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from layoutsel.cluster.statistics import NodeState, Statistics
from layoutsel.cluster.topology import SCHEMA_VERSION, SWITCH, Header, Link, Node, Topology
from tvm_passes.errors import LayoutselError

DEVICE, SERVER = "device", "server"
"""Nodes: the first holds the inputs and takes the results."""
_RATES_GBPS = {"kbit/s": 1e-6, "mbit/s": 1e-3, "gbit/s": 1.0}
"""Units of rates, gigabits per second."""
_TIMES_US = {"us": 1.0, "ms": 1e3, "s": 1e6}
"""Units of times, microseconds."""
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9}
"""Units of sizes, bytes."""
_AMOUNT = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z/]+)\s*", re.IGNORECASE)
"""Pattern of a number with its unit."""


def two_devices(
    link: str | Sequence[str],
    *,
    device: Path | None = None,
    server: Path | None = None,
    threads: tuple[int | None, int | None] = (1, 1),
    loads: tuple[float, float] = (0.0, 0.0),
) -> tuple[Topology, Statistics]:
    """Make the topology of a device and a server, and its state.

    Parameters
    ----------
    link
        Rate and round trip, such as ``20Mbit/s,5ms``. Several ones have names, such as
        ``wifi=20Mbit/s,5ms``; each goes over a switch of this name.
    device, server
        Machine files; None for this machine.
    threads
        Number of threads of device and server; None for those of a machine file.
    loads
        Share of the processors of device and server that other work occupies.

    Raises
    ------
    LayoutselError
        If a value is out of range.
    """
    joined = parse_links((link,) if isinstance(link, str) else link)
    files = (device, server)
    nodes = tuple(
        Node(
            id=id_,
            machine=str(file.resolve()) if file else "",
            threads=None if file else count,
        )
        for id_, file, count in zip((DEVICE, SERVER), files, threads, strict=True)
    )
    topology = Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=SCHEMA_VERSION, origin=DEVICE),
        nodes=(*nodes, *(Node(id=name, kind=SWITCH) for name in joined if name)),
        links=tuple(one for name, values in joined.items() for one in _links(name, *values)),
    )
    busy = zip((DEVICE, SERVER), loads, strict=True)
    statistics = Statistics(
        nodes={id_: NodeState(others_busy=share) for id_, share in busy if share}
    )
    topology.check(file="topology")
    statistics.check(topology)
    return topology, statistics


def _links(name: str, gbps: float, rtt_us: float) -> Iterator[Link]:
    """Links of a way between both devices, over a switch if it has a name."""
    yield Link(source=DEVICE, target=name or SERVER, gbps=gbps, rtt_us=rtt_us)
    if name:
        yield Link(source=name, target=SERVER, gbps=gbps, rtt_us=0.0)


def parse_links(texts: Sequence[str]) -> Mapping[str, tuple[float, float]]:
    """Parse links such as ``wifi=20Mbit/s,5ms`` by name; one alone may have none.

    Raises
    ------
    LayoutselError
        If a link has another form, or several have no names of their own.
    """
    found: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, equals, link = text.rpartition("=")
        is_taken = bool(equals) and name in ("", DEVICE, SERVER, *found)
        if is_taken or (len(texts) > 1 and not name):
            raise LayoutselError(
                f"--link {text}: expected a name of its own for each of several links, such as "
                f"wifi=20Mbit/s,5ms; not {DEVICE} or {SERVER}"
            )
        found[name] = parse_link(link)
    return found


def parse_link(text: str) -> tuple[float, float]:
    """Parse ``20Mbit/s,5ms`` as gigabits per second and microseconds.

    Raises
    ------
    LayoutselError
        If the text has another form, or the rate is 0.
    """
    rate, _, time = text.partition(",")
    gbps, rtt_us = _amount(rate, _RATES_GBPS), _amount(time, _TIMES_US)
    if gbps is None or rtt_us is None or gbps <= 0:
        raise LayoutselError(
            f"--link {text}: expected a rate above 0 and the time of a round trip, such as "
            "20Mbit/s,5ms"
        )
    return gbps, rtt_us


def parse_time_us(option: str, text: str) -> float:
    """Parse a time such as ``8ms`` as microseconds; it must be above 0."""
    us = _amount(text, _TIMES_US)
    if us is None or us <= 0:
        raise LayoutselError(f"{option} {text}: expected a time above 0, such as 8ms or 500us")
    return us


def parse_bytes(option: str, text: str) -> float:
    """Parse a size such as ``2kB`` as bytes; it must be above 0."""
    size = _amount(text, _BYTES)
    if size is None or size <= 0:
        raise LayoutselError(f"{option} {text}: expected a size above 0, such as 800B or 2kB")
    return size


def _amount(text: str, units: dict[str, float]) -> float | None:
    """Number in the units' own unit; None if the text has another form."""
    found = _AMOUNT.fullmatch(text)
    if found is None or found[2].lower() not in units:
        return None
    try:
        return float(found[1]) * units[found[2].lower()]
    except ValueError:
        return None
