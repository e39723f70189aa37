"""Pictures of a search: its front, gates, hypervolume, the placements over bandwidth, networks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.topology import Topology
from layoutsel.planning.objectives import decide
from layoutsel.report.curves import Series, write_curves
from layoutsel.search.drawing import draw_network
from layoutsel.search.found import SHARED, TEST, TUNE, FoundNetwork
from layoutsel.search.parts import PartGraph, parts_of
from layoutsel.search.placing import cluster_of, placed_us
from layoutsel.search.prices import PriceTable
from layoutsel.search.run_folder import RunFolder

FACTORS = tuple(float(one) for one in np.geomspace(1 / 64, 64, 25))
"""Factors on the rates of all links in the picture over bandwidth."""
_ACCURACIES = {
    TUNE: "validation samples, after training",
    TEST: "test samples, after training",
    SHARED: "validation samples, with common weights",
}


def draw(run: RunFolder) -> list[Path]:
    """Draw all pictures that a search has data for; returns their files.

    Raises
    ------
    WriteError
        If a file cannot be written.
    """
    return list(_drawn(run))


def _drawn(run: RunFolder) -> Iterator[Path]:
    networks = run.found()
    name = f"{run.question.kind} search, {run.question.space.data}"
    if networks:
        yield _front(networks, run.path / "front.svg", name)
        for one in networks:
            graph = parts_of(run.question.space, one.architecture)
            file = run.folder_of(one.number) / "network.svg"
            title = f"{name}: network {one.number}, {one.predicted_us / 1e3:.3g} ms predicted"
            draw_network(one, graph, file, title=title)
            yield file
    if (table := run.prices) is not None and networks:
        yield _bandwidths(run, table, networks, run.path / "bandwidth.svg", name)
    gates = _gates(run)
    if gates:
        yield _written(gates, run.path / "gates.svg", f"{name}: open channels", "epoch", "channels")
    if volume := _hypervolume(run):
        file = run.path / "hypervolume.svg"
        yield _written(volume, file, f"{name}: hypervolume", "accuracy queries", "share of the box")


def _written(series: Sequence[Series], file: Path, title: str, x: str, y: str) -> Path:
    write_curves(series, file, title=title, x=x, y=y)
    return file


def _front(networks: Sequence[FoundNetwork], file: Path, name: str) -> Path:
    series = []
    for kind, about in _ACCURACIES.items():
        points = [
            (one.predicted_us / 1e3, 100 * one.accuracies[kind])
            for one in networks
            if kind in one.accuracies
        ]
        if points:
            labels = tuple(str(one.number) for one in networks if kind in one.accuracies)
            series.append(Series(name=about, points=tuple(points), is_line=False, labels=labels))
    measured = [
        (one.measured[-1].median_us / 1e3, 100 * one.accuracies[TEST])
        for one in networks
        if one.measured and TEST in one.accuracies
    ]
    series.append(Series(name="test samples, measured", points=tuple(measured), is_line=False))
    title = f"{name}: accuracy by time of a request"
    return _written(series, file, title, "milliseconds", "right answers, %")


def _bandwidths(
    run: RunFolder, table: PriceTable, networks: Sequence[FoundNetwork], file: Path, name: str
) -> Path:
    """Draw the share of work away from the origin in the best placement, by the rate of links."""
    topology = run.question.topology
    rate = min(link.gbps for link in topology.links) if topology.links else 1.0
    series = []
    for one in networks:
        graph = parts_of(run.question.space, one.architecture)
        points = [
            (1e3 * rate * factor, _share_away(run, graph, table, _faster(topology, factor)))
            for factor in FACTORS
        ]
        series.append(Series(name=f"network {one.number}", points=tuple(points)))
    write_curves(
        series,
        file,
        title=f"{name}: parts that leave the first node, by the slowest link's rate",
        x="Mbit/s",
        y="parts on other nodes, %",
        log_x=True,
    )
    return file


def _faster(topology: Topology, factor: float) -> Topology:
    links = tuple(replace(link, gbps=link.gbps * factor) for link in topology.links)
    return replace(topology, links=links)


def _share_away(run: RunFolder, graph: PartGraph, table: PriceTable, topology: Topology) -> float:
    """Share of parts, in percent, that the best placement of a network moves from the origin."""
    cluster = cluster_of(graph, table, MessageRoutes(topology, run.question.statistics))
    placement = cluster.placement(decide(cluster.problem).solution.decisions)
    staying = {part.name: topology.origin for part in graph.parts}
    if placed_us(cluster, staying) <= placed_us(cluster, placement):
        return 0.0
    away = sum(node != topology.origin for node in placement.values())
    return 100 * away / len(placement)


def _gates(run: RunFolder) -> list[Series]:
    """Open channels by tensor over epochs, from the events of a search for two devices."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in run.events("gates"):
        for tensor, count in event["open"].items():
            points[tensor].append((float(event["epoch"]), float(count)))
    return [Series(name=tensor, points=tuple(held)) for tensor, held in points.items()]


def _hypervolume(run: RunFolder) -> list[Series]:
    points = [
        (float(event["queries"]), float(event["hypervolume"])) for event in run.events("round")
    ]
    return [Series(name="all networks so far", points=tuple(points))] if points else []
