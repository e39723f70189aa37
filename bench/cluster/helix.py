"""Clusters of Helix (ASPLOS'25, Apache-2.0) as topologies: ``python bench/cluster/helix.py cluster24.ini -o helix24.json``.

An ``.ini`` file lists nodes by type, and the rate and delay of the link between every two of them. Its ``mbps`` are
megabytes per second (its own comments count 1250 of them as 1.25e9). ``machine_profiles.ini`` tells the memory of a type.
Its interfaces, of 10 GB/s each, are left out: as switches they would relay messages of others. Source and sink are one node
here, the origin, which holds the inputs and takes the results.
"""

from __future__ import annotations

import argparse
import configparser
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from layoutsel.cluster.topology import SCHEMA_VERSION, Header, Link, Node, Topology
from layoutsel.errors import LayoutselError

ORIGIN, SOURCE, SINK = "origin", "source", "sink"
UNITS = {"mbps": 8e-3, "gbps": 8.0, "MilliSec": 1e3, "GB": 1e9}
"""Gigabits per second, microseconds and bytes by unit of the files."""
PROFILES = "machine_profiles.ini"


def read(file: Path, machines: Mapping[str, str] | None = None) -> Topology:
    """Read a cluster.

    Parameters
    ----------
    file
        The cluster's ``.ini`` file, beside ``machine_profiles.ini``.
    machines
        Machine file by type of node; a type without one is named ``<type>.json``.
    """
    cluster, profiles = _parsed(file), _parsed(file.with_name(PROFILES))
    types = {
        name.removeprefix("ComputeNode-"): cluster[name]["type"]
        for name in cluster.sections()
        if name.startswith("ComputeNode-")
    }
    named = {number: f"n{number}" for number in types} | {SOURCE: ORIGIN, SINK: ORIGIN}
    nodes = [Node(id=ORIGIN, machine=(machines or {}).get(ORIGIN, f"{ORIGIN}.json"))]
    for number, kind in types.items():
        if kind not in profiles:
            raise LayoutselError(f"{file}: got type {kind!r}; expected one of {PROFILES}")
        nodes.append(
            Node(
                id=named[number],
                machine=(machines or {}).get(kind, f"{kind}.json"),
                memory_bytes=_value(profiles[kind]["vram_size"], file),
                labels={"type": kind},
            )
        )
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=SCHEMA_VERSION, origin=ORIGIN),
        nodes=tuple(nodes),
        links=tuple(_between(cluster, named, file)),
    )


def _between(
    cluster: configparser.ConfigParser, named: Mapping[str, str], file: Path
) -> Iterator[Link]:
    """Links between nodes: the mean rate and the round trip of both directions."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for section in cluster.sections():
        if (match := re.fullmatch(r"Link-(\w+)-(\w+)", section)) is None:
            continue
        first, second = sorted(named[end] for end in match.groups())
        rate = _value(cluster[section]["bandwidth"], file)
        delay_us = _value(cluster[section]["latency"], file)
        found.setdefault((first, second), []).append((rate, delay_us))
    for (first, second), ways in found.items():
        yield Link(
            source=first,
            target=second,
            gbps=sum(rate for rate, _ in ways) / len(ways),
            rtt_us=2 * sum(delay_us for _, delay_us in ways) / len(ways),
        )


def _parsed(file: Path) -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    if not found.read(file):
        raise LayoutselError(f"{file}: no such file; expected a cluster of Helix")
    return found


def _value(text: str, file: Path) -> float:
    """Read ``14.2 * mbps``."""
    number, _, unit = (part.strip() for part in text.partition("*"))
    if unit not in UNITS:
        raise LayoutselError(f"{file}: got {text!r}; expected a number * one of {', '.join(UNITS)}")
    return float(number) * UNITS[unit]


def main() -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    read(arguments.file).save(arguments.output)


if __name__ == "__main__":
    main()
