"""Devices and models of PipeEdge (usc-isi) as topologies and atoms, from its three YAML files.

``python bench/cluster/pipeedge.py devices.yml device_types.yml -o lab.json``. Every device is a node behind one switch, with
the bandwidth and memory of its type. PipeEdge's README_Scheduler.md defines the files.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layoutsel.cluster.topology import SCHEMA_VERSION, SWITCH, Header, Link, Node, Topology
from layoutsel.errors import LayoutselError

BYTES = {"torch.float32": 4, "torch.float16": 2, "torch.bfloat16": 2, "torch.uint8": 1}
"""Bytes of a parameter by PyTorch's type."""
MEGABYTE = 1_000_000
RTT_US = 200.0
"""Round trip between two devices, microseconds; PipeEdge's files state none."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A model of PipeEdge: layers in a row."""

    us: Mapping[str, tuple[float, ...]]
    """Time of each layer by type of device, microseconds."""
    bytes: tuple[int, ...]
    """Bytes of the input, and of the output of each layer."""
    weight_bytes: tuple[float, ...]
    """Memory of each layer, bytes."""


def read_topology(devices: Path, types: Path) -> Topology:
    """Read devices; the first one is the origin."""
    kinds, hosts = _yaml(types), _yaml(devices)
    nodes, links = [], []
    for kind, names in hosts.items():
        if kind not in kinds:
            raise LayoutselError(f"{devices}: got type {kind!r}; expected one of {types}")
        for name in names or ():
            nodes.append(
                Node(
                    id=name,
                    machine=f"{kind}.json",
                    memory_bytes=float(kinds[kind]["mem_MB"]) * MEGABYTE,
                    labels={"type": kind},
                )
            )
            rate = float(kinds[kind]["bw_Mbps"]) / 1000
            links.append(Link(source=name, target="switch", gbps=rate, rtt_us=RTT_US / 2))
    if not nodes:
        raise LayoutselError(f"{devices}: got no device; expected a list of hosts by type")
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=SCHEMA_VERSION, origin=nodes[0].id),
        nodes=(*nodes, Node(id="switch", kind=SWITCH)),
        links=tuple(links),
    )


def read_model(models: Path, types: Path, name: str) -> Chain:
    """Read a model with its times on all types that have some, for their first batch size."""
    known = _yaml(models)
    if name not in known:
        raise LayoutselError(f"{models}: got model {name!r}; expected one of {', '.join(known)}")
    model, us, batches = known[name], {}, set()
    for kind, properties in _yaml(types).items():
        profiles = (properties.get("model_profiles") or {}).get(name)
        if profiles:
            us[kind] = tuple(1e6 * seconds for seconds in profiles[0]["time_s"])
            batches.add((profiles[0]["batch_size"], BYTES[profiles[0]["dtype"]]))
            if len(us[kind]) != model["layers"]:
                raise LayoutselError(
                    f"{types}: {kind}: got {len(us[kind])} times of {name}; "
                    f"expected {model['layers']}"
                )
    if len(batches) != 1:
        raise LayoutselError(
            f"{types}: got {len(batches)} batch sizes and types of {name}; expected one for all"
        )
    ((batch, size),) = batches
    return Chain(
        us=us,
        bytes=tuple(batch * size * n for n in (model["parameters_in"], *model["parameters_out"])),
        weight_bytes=tuple(megabytes * MEGABYTE for megabytes in model["mem_MB"]),
    )


def _yaml(file: Path) -> dict[str, Any]:
    import yaml

    with file.open(encoding="utf-8") as stream:
        found = yaml.safe_load(stream)
    if not isinstance(found, dict):
        raise LayoutselError(f"{file}: got {type(found).__name__}; expected a mapping")
    return found


def main() -> None:
    """Convert the devices of two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("devices", type=Path)
    parser.add_argument("types", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    read_topology(arguments.devices, arguments.types).save(arguments.output)


if __name__ == "__main__":
    main()
