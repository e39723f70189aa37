"""Graphs of others as division problems: Tarnawski's JSON files and PipeDream's profiles, read in place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.planning.division import DivisionProblem, SentTensor, merged

US_PER_MS = 1e3
PIPEDREAM_GB_PER_S = 12.0
"""Rate between machines for PipeDream's profiles, which have none: PCI Express 3.0 with 16 lanes."""
_NODE = re.compile(
    r"node(\d+) -- .* -- forward_compute_time=([\d.]+), backward_compute_time=[\d.]+, "
    r"activation_size=(.+), parameter_size=([\d.]+)"
)
_EDGE = re.compile(r"\tnode(\d+) -- node(\d+)")


def tarnawski(path: Path, *, cpus: int | None = None) -> DivisionProblem:
    """Read an instance: equal accelerators, and CPUs that take no time to send and receive.

    Nodes of one colour are merged, as their definition puts them on one device.
    """
    data = json.loads(path.read_text())
    nodes = {node["id"]: node for node in data["nodes"]}
    readers: dict[int, dict[int, float]] = {}
    for edge in data["edges"]:
        readers.setdefault(edge["sourceId"], {})[edge["destId"]] = edge["cost"]
    colours = {id_: node.get("colorClass") for id_, node in nodes.items()}
    order = sorted_ids(nodes, readers)
    number = {id_: i for i, id_ in enumerate(order)}
    tensors = [
        _tensor(number[source], [number[c] for c in costs], US_PER_MS * max(costs.values()), (1, 0))
        for source, costs in readers.items()
    ]
    found = DivisionProblem(
        compute_us=US_PER_MS
        * np.array([[_time(nodes[i]), float(nodes[i]["cpuLatency"])] for i in order]),
        tensors=tuple(tensors),
        counts=(data["maxFPGAs"], data["maxCPUs"] if cpus is None else cpus),
        bytes=np.array([float(nodes[i]["size"]) for i in order]),
        limits=(float(data["maxSizePerFPGA"]), np.inf),
    )
    groups = {i: f"colour {c}" if (c := colours[i]) is not None else f"node {i}" for i in order}
    return merged(found, numbered_groups(found, [groups[i] for i in order]))


def pipedream(path: Path) -> DivisionProblem:
    """Read a profile: forward times, activations and parameters of every layer; one machine."""
    times, sizes, weights = {}, {}, {}
    readers: dict[int, dict[int, float]] = {}
    for line in path.read_text().splitlines():
        if (node := _NODE.match(line)) is not None:
            id_ = int(node[1])
            times[id_] = float(node[2])
            sizes[id_] = sum(map(float, re.findall(r"[\d.]+", node[3])))
            weights[id_] = float(node[4])
        elif (edge := _EDGE.match(line)) is not None:
            readers.setdefault(int(edge[1]), {})[int(edge[2])] = 0.0
        elif line.strip():
            raise ValueError(f"{path}: cannot read {line!r}")
    order = sorted_ids(times, readers)
    number = {id_: i for i, id_ in enumerate(order)}
    return DivisionProblem(
        compute_us=US_PER_MS * np.array([[times[i]] for i in order]),
        tensors=tuple(
            _tensor(number[s], [number[c] for c in to], sizes[s] / PIPEDREAM_GB_PER_S * 1e-3, (1,))
            for s, to in readers.items()
        ),
        counts=(1,),
        bytes=np.array([sizes[i] + weights[i] for i in order]),
        limits=(np.inf,),
    )


def with_machines(problem: DivisionProblem, count: int) -> DivisionProblem:
    """The same network on `count` machines of the first class alone."""
    return replace(
        problem,
        compute_us=problem.compute_us[:, :1],
        tensors=tuple(
            replace(t, send_us=t.send_us[:1], receive_us=t.receive_us[:1]) for t in problem.tensors
        ),
        counts=(count,),
        limits=problem.limits[:1],
    )


def sorted_ids(nodes: Iterable[int], readers: Mapping[int, Mapping[int, float]]) -> list[int]:
    """Ids in a topological order, and in their own order where that leaves a choice."""
    before: dict[int, list[int]] = {id_: [] for id_ in sorted(nodes)}
    for source, to in readers.items():
        for id_ in to:
            before[id_].append(source)
    return list(TopologicalSorter(before).static_order())


def numbered_groups(problem: DivisionProblem, names: list[str]) -> list[int]:
    """Number of the group of each sub-graph, in a topological order of the groups."""
    before: dict[str, set[str]] = {name: set() for name in names}
    for tensor in problem.tensors:
        for consumer in tensor.consumers:
            if names[consumer] != names[tensor.producer]:
                before[names[consumer]].add(names[tensor.producer])
    number = {name: i for i, name in enumerate(TopologicalSorter(before).static_order())}
    return [number[name] for name in names]


def _tensor(
    producer: int, consumers: list[int], us: float, per_class: tuple[int, ...]
) -> SentTensor:
    times = us * np.array(per_class, dtype=float)
    return SentTensor(
        producer=producer, consumers=tuple(sorted(consumers)), send_us=times, receive_us=times
    )


def _time(node: Mapping[str, Any]) -> float:
    return float(node["fpgaLatency"]) if node["supportedOnFpga"] else float(np.inf)
