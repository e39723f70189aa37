"""Limits of the time of a request: kept by predictions, and by the deployed networks.

``PYTHONPATH=bench python -m search.limits --work DIR --json bench/results/search_limits.json``. For
both kinds of search, limits are drawn over a space's times on several links. The network is what a
search with random preferences finds within the limit: the slowest point of the exact front of
random scores that keeps it, or the projection of random selectors. It has random weights, as only
times count. It is compiled, and answers requests over two emulated nodes. A last row has the share
of networks whose measured time exceeds the limit by at most a tenth, and the mean error of
predictions. The folder has to be a new one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from layoutsel.benchmarking.compare import save
from layoutsel.cluster.engine_probing import engine_between
from layoutsel.search.default_spaces import CHAINS
from layoutsel.search.deploying import measure
from layoutsel.search.found import NETWORK, FoundNetwork
from layoutsel.search.front import Scores
from layoutsel.search.label_setting import front_of
from layoutsel.search.networks import write_network
from layoutsel.search.offload.onnx_parts import write_parts
from layoutsel.search.offload.pricing import OffloadPrices
from layoutsel.search.offload.search import OffloadSearch, fitting, sliced
from layoutsel.search.offload.settings import OffloadLimits, SelectorState
from layoutsel.search.offload.spaces import OFFLOAD_SPACES
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.transmitted import FLOAT32, PRECISIONS
from layoutsel.search.parts import PartGraph, parts_of
from layoutsel.search.placed_network import found_network
from layoutsel.search.pricing import priced, pricing_of
from layoutsel.search.product_graph import product_graph
from layoutsel.search.run_folder import RunFolder, SearchQuestion, routes_of_question
from layoutsel.search.space import Space
from layoutsel.search.trained import PartWeights
from layoutsel.search.two_devices import two_devices

LINKS = (
    ("500kbit/s,10ms", 0.9),
    ("2Mbit/s,2ms", 0.9),
    ("20Mbit/s,5ms", 0.75),
    ("100Mbit/s,1ms", 0.5),
)
"""Links, and the share of the device's processor that other work occupies."""
SPACES: Mapping[str, Mapping[str, Space]] = {"joint": CHAINS, "offload": OFFLOAD_SPACES}
"""Spaces by data set, by kind of search."""
DEVICE_BYTES = 60e3
"""Memory of the device in joint searches, bytes: larger networks must be divided."""
FRONT_S = 2.0
"""Time after which a front with a limit of memory drops labels, as searches do, seconds."""
TIGHT = 1.05
"""Largest limit relative to the time of a point of the front."""
MARGIN = 1.1
"""Measured time over the limit up to which the limit counts as kept."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A limit, and a network that keeps it."""

    limit_us: float
    """Limit, microseconds."""
    found: FoundNetwork
    """Network with its placement and prediction."""
    model: onnx.ModelProto
    """Network with random weights."""


def joint_networks(run: RunFolder, count: int) -> Iterator[Drawn]:
    """Points of exact fronts of random scores, the slowest within limits near one of their times."""
    question, table = run.question, priced(run)
    space, random = question.space, np.random.default_rng(question.seed)
    graph = product_graph(space, table, routes_of_question(question))
    for number in range(count):
        # Wider layers are better on average, so that some networks exceed the device's memory.
        single = tuple(
            np.array([one.channels * random.exponential() for one in layer.choices])
            for layer in graph.layers[1:-1]
        )
        points = front_of(graph, Scores(single=single), time_limit_s=FRONT_S).points
        drawn = points[random.integers(len(points))]
        limit_us = float(drawn.us * random.uniform(1.0, TIGHT))
        point = next(one for one in reversed(points) if one.us <= limit_us)
        parts = parts_of(space, point.architecture)
        found = found_network(
            question, table, number, point.architecture, parts, point.nodes, accuracies={}
        )
        yield Drawn(limit_us=limit_us, found=found, model=write_network(parts, seed=number))


def offload_networks(run: RunFolder, count: int) -> Iterator[Drawn]:
    """Projections of random selectors within limits, down to half the time of those without."""
    question, random = run.question, np.random.default_rng(run.question.seed)
    shape = SupernetShape.of(question.space)
    prices = OffloadPrices(routes_of_question(question), pricing_of(run), run.prices)
    times = prices.times(shape)
    asked = OffloadSearch(space=question.space, prices=prices)
    for number in range(count):
        state = random_selectors(shape, random)
        free = prices.predict(sliced(asked.space, fitting(asked, shape, times, state).choice))
        least_us = times.fixed_us() + times.links[0].message.us
        limit_us = float(random.uniform(least_us + 0.2 * (free.us - least_us), free.us))
        limited = replace(asked, limits=OffloadLimits(us=limit_us))
        choice = fitting(limited, shape, times, state).choice
        network = sliced(asked.space, choice)
        predicted = prices.predict(network)
        found = FoundNetwork(
            number=number,
            architecture=choice.architecture,
            placement={part.name: prices.nodes[part.device] for part in network.parts},
            sent=(),
            predicted_us=predicted.us,
            spread_us=predicted.spread_us,
            accuracies={},
            precision=choice.precision,
        )
        weights = random_weights(network.graph, number)
        yield Drawn(
            limit_us=limit_us, found=found, model=write_parts(network, weights, {})["whole"]
        )


def random_selectors(shape: SupernetShape, random: np.random.Generator) -> SelectorState:
    """Selectors with random probabilities, as a training might end with."""
    offered = [np.array(cell.offered, float) for cell in shape.cells]
    drawn = [one * random.exponential(size=one.shape) for one in offered]
    precision = np.array([float(name == FLOAT32) for name in PRECISIONS])
    return SelectorState(
        phase="random",
        time_weight=0.0,
        operations=tuple(one / one.sum(-1, keepdims=True) for one in drawn),
        resources=tuple(random.uniform(0.02, 0.98, one.shape) for one in offered),
        channels={name: random.uniform(size=size) for name, (size, *_) in shape.sendable()},
        precision=precision,
        position=random.dirichlet(np.ones(len(offered))),
        expected_us=0.0,
        expected_bytes=0.0,
    )


def random_weights(graph: PartGraph, seed: int) -> PartWeights:
    """Random weights of a network's parts."""
    found: dict[str, tuple[np.ndarray, ...]] = {part.name: () for part in graph.parts}
    for one in write_network(graph, seed=seed).graph.initializer:
        found[one.name.partition("/")[0]] += (numpy_helper.to_array(one),)
    return found


DRAWING: Mapping[str, Callable[[RunFolder, int], Iterator[Drawn]]] = {
    "joint": joint_networks,
    "offload": offload_networks,
}
"""Networks within limits, by kind of search."""


def rows(work: Path, kind: str, data: str, link: str, load: float, count: int) -> Iterator[Row]:
    """Networks of one space over one link, deployed."""
    topology, statistics = two_devices(link, loads=(load, 0.0))
    if kind == "joint":
        device, server = topology.nodes
        topology = replace(topology, nodes=(replace(device, memory_bytes=DEVICE_BYTES), server))
    question = SearchQuestion(
        kind=kind,
        space=SPACES[kind][data],
        topology=topology,
        statistics=statistics,
        engine=engine_between(topology),
        seed=[one for one, _ in LINKS].index(link),
        choices={"cost": "learned"},
    )
    run = RunFolder.begin(work / f"{kind}-{data}-{link.replace('/', '')}", question, work)
    table = work / f"prices-{kind}-{data}.json"
    if run.prices is None and table.exists():  # those of the machine are equal for all links
        (run.path / "prices.json").write_text(table.read_text())
    drawn = list(DRAWING[kind](run, count))
    assert run.prices is not None
    run.prices.save(table)
    for one in drawn:
        onnx.save(one.model, run.keep(one.found) / NETWORK)
        made = measure(run, one.found, lambda _text: None, cost="learned").measured[-1]
        yield {
            "kind": kind,
            "data": data,
            "link": link,
            "load": load,
            "network": one.found.number,
            "nodes": len(one.found.nodes),
            "limit_us": round(one.limit_us, 1),
            "searched_us": round(one.found.predicted_us, 1),
            "predicted_us": round(made.predicted_us, 1),
            "staged_us": round(made.staged_us, 1),
            "measured_us": round(made.median_us, 1),
            "measured_spread_us": round(made.measured_spread_us, 1),
            "engine_us": round(run.question.engine.request_us, 1),
            "call_us": round(run.question.engine.call_us, 1),
        }


def summary(found: list[Row]) -> Row:
    """Shares of kept limits, and mean errors of predictions."""
    limits, measured = (
        np.array([row[name] for row in found]) for name in ("limit_us", "measured_us")
    )
    searched = np.array([row["searched_us"] for row in found])
    errors = {
        f"{name}_mean_error": round(
            float(np.mean([abs(row[f"{name}_us"] / row["measured_us"] - 1) for row in found])), 4
        )
        for name in ("searched", "predicted", "staged")
    }
    return {
        "kind": "all",
        "networks": len(found),
        "predicted_keeps": round(float(np.mean(searched <= limits * (1 + 1e-9))), 4),
        "measured_keeps_within_a_tenth": round(float(np.mean(measured <= MARGIN * limits)), 4),
        **errors,
    }


def main() -> None:
    """Deploy networks of all spaces over all links."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2, help="networks of a space and link")
    parser.add_argument("--kinds", default=",".join(SPACES))
    parser.add_argument("--data", default="mnist1d,mnist5k")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    begin_s = time.perf_counter()
    found: list[Row] = []
    for kind in arguments.kinds.split(","):
        for data in arguments.data.split(","):
            for link, load in LINKS:
                for row in rows(arguments.work, kind, data, link, load, arguments.count):
                    found.append(row)
                    print(*row.values(), sep="\t", flush=True)
                    save(arguments.json, [*found, summary(found)])
    print(summary(found))
    print(f"{time.perf_counter() - begin_s:.0f} s")


if __name__ == "__main__":
    main()
