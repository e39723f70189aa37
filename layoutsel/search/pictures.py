"""Pictures of a search: its front, gates, hypervolume, the placements over bandwidth, networks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.topology import Topology
from layoutsel.report.curves import Series, write_curves
from layoutsel.search.drawing import draw_network
from layoutsel.search.fastest import fastest
from layoutsel.search.found import TEST, TUNE, FoundNetwork
from layoutsel.search.link_choice import over_link
from layoutsel.search.parts import parts_of
from layoutsel.search.prices import PriceTable
from layoutsel.search.run_folder import RunFolder

FACTORS = tuple(float(one) for one in np.geomspace(1 / 64, 64, 25))
"""Factors on the rates of all links in the picture over bandwidth."""
_ACCURACIES = {
    TUNE: "validation samples, after training",
    TEST: "test samples, after training",
}


@dataclass(frozen=True, kw_only=True)
class _Gates:
    """Selectors after an epoch, in the log."""

    epoch: int
    """Number of the epoch."""
    open: Mapping[str, int]
    """Number of open channels by tensor."""


@dataclass(frozen=True, kw_only=True)
class _Round:
    """Progress of a search, in the log."""

    queries: int
    """Number of accuracies so far."""
    hypervolume: float
    """Share of the box that the networks so far dominate."""


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
    """Draw the least time of each network by the rate of links, and where its placement changes."""
    question = run.question
    series = []
    for one in networks:
        topology, statistics = over_link(question.topology, question.statistics, one.link)
        rate = min((link.gbps for link in topology.links), default=1.0)
        times, changes = [], []
        before: Mapping[str, str] = {}
        for factor in FACTORS:
            routes = MessageRoutes(_faster(topology, factor), statistics, question.engine)
            point = fastest(question.space, one.architecture, table, routes)
            if point is None:
                continue
            times.append((1e3 * rate * factor, point.us / 1e3))
            if point.nodes != before:
                changes.append((times[-1], _away(point.nodes, topology.origin)))
            before = point.nodes
        series.append(Series(name=f"network {one.number}", points=tuple(times)))
        series.append(
            Series(
                name=f"network {one.number}: parts elsewhere",
                points=tuple(point for point, _ in changes),
                is_line=False,
                labels=tuple(label for _, label in changes),
            )
        )
    write_curves(
        series,
        file,
        title=f"{name}: least time by the rate of the slowest link, and changes of the placement",
        x="Mbit/s",
        y="milliseconds",
        log_x=True,
    )
    return file


def _faster(topology: Topology, factor: float) -> Topology:
    links = tuple(replace(link, gbps=link.gbps * factor) for link in topology.links)
    return replace(topology, links=links)


def _away(nodes: Mapping[str, str], origin: str) -> str:
    """Number of parts that are not on the first node, of all."""
    return f"{sum(node != origin for node in nodes.values())} of {len(nodes)}"


def _gates(run: RunFolder) -> list[Series]:
    """Open channels by tensor over epochs, from the events of a search for two devices."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for gates in run.logged("gates", _Gates):
        for tensor, count in gates.open.items():
            points[tensor].append((float(gates.epoch), float(count)))
    return [Series(name=tensor, points=tuple(held)) for tensor, held in points.items()]


def _hypervolume(run: RunFolder) -> list[Series]:
    points = [(float(one.queries), one.hypervolume) for one in run.logged("round", _Round)]
    return [Series(name="all networks so far", points=tuple(points))] if points else []
