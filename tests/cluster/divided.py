"""A small network with one stage for each atom, and distributions of it over nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np
import onnx
from onnx import helper
from small_models import IMAGE, image, model_of

import layoutsel
from layoutsel.cluster.distribution import (
    SCHEMA_VERSION,
    Distribution,
    Distributions,
    Metric,
    Route,
    Segment,
    Target,
    Transfer,
)
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import Header, Link, Node, Topology
from layoutsel.planning.plan import Plan
from layoutsel.planning.stages import Stage

LIMIT_S = 60
"""Limit of an answer, seconds."""
PATIENT = {"least_s": 20}
"""Limits for tests where no deadline may pass: a busy machine keeps threads waiting for seconds."""
ORIGIN, CLASS = "edge", "this"
"""Origin of all requests, and the machine class of all nodes."""
BYTES = 4 * int(np.prod(IMAGE))
"""Size of each tensor of the network."""


def network(depth: int = 4) -> onnx.ModelProto:
    """Convolutions in a chain, with the result of the first one added to that of the last one."""
    generator = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    source = "x"
    for index in range(depth):
        weight = f"w{index}"
        weights[weight] = (generator.standard_normal((8, 8, 3, 3)) / 8).astype(np.float32)
        nodes.append(helper.make_node("Conv", [source, weight], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Tanh", [f"c{index}"], [f"t{index}"]))
        source = f"t{index}"
    nodes.append(helper.make_node("Mul", [source, "t0"], ["y"]))
    return model_of(nodes, {"x": IMAGE}, {"y": IMAGE}, weights)


def plan_in_atoms(model: onnx.ModelProto) -> Plan:
    """A plan whose stages are the convolutions, the last of them with the product."""
    plan = layoutsel.plan(model, units=["cpu"], cost="roofline", threads=1)
    parts: list[list[str]] = []
    for subgraph in plan.subgraphs:
        if any("conv2d" in operator for operator in subgraph.operators):
            parts.append([])
        parts[-1].append(subgraph.id)
    return plan.in_stages({f"a{index}": part for index, part in enumerate(parts)})


def segments(stages: Sequence[Stage], nodes: Sequence[str], us: float = 2000) -> list[Segment]:
    """Segments of neighbouring atoms with the same node."""
    numbers = range(len(stages))
    parts = [list(part) for _, part in groupby(numbers, key=lambda number: nodes[number])]
    found = []
    for index, part in enumerate(parts):
        own = [stages[number] for number in part]
        made = {name for stage in own for name in stage.outputs}
        others = [stages[number] for number in numbers if number not in part]
        wanted = {name for stage in others for name in stage.inputs}
        read = dict.fromkeys(name for stage in own for name in stage.inputs)
        found.append(
            Segment(
                id=f"s{index}",
                node=nodes[part[0]],
                atoms=tuple(stage.name for stage in own),
                subgraphs=tuple(id_ for stage in own for id_ in stage.subgraphs),
                inputs=tuple(name for name in read if name not in made),
                outputs=tuple(
                    name
                    for stage in own
                    for name in stage.outputs
                    if name in wanted or name.startswith("output.")
                ),
                us=us,
                spread_us=us / 10,
            )
        )
    return found


def route(stages: Sequence[Stage], nodes: Sequence[str], weight: float = 1, us=2000) -> Route:
    """A route that runs each atom on the given node."""
    own = segments(stages, nodes, us)
    home = {name: segment.node for segment in own for name in segment.outputs}
    sent = {(name, one.node) for one in own for name in one.inputs}
    sent |= {(name, ORIGIN) for name in home if name.startswith("output.")}
    transfers = tuple(
        Transfer(
            tensor=name,
            source=home.get(name, ORIGIN),
            destination=destination,
            bytes=BYTES,
            us=100,
        )
        for name, destination in sorted(sent)
        if home.get(name, ORIGIN) != destination
    )
    return Route(weight=weight, segments=tuple(own), transfers=transfers)


def distribution(
    stages: Sequence[Stage],
    routes: Mapping[tuple[str, ...], float],
    without: Mapping[str, Sequence[str]] | None = None,
    us: float = 2000,
) -> Distribution:
    """A distribution of routes, given by the node of each atom, and of their replacements."""
    return Distribution(
        target=Target(name="latency"),
        routes=tuple(route(stages, nodes, weight, us) for nodes, weight in routes.items()),
        metrics={"latency": Metric(unit="us", predicted=us)},
        solver="test",
        time_s=0.0,
        without={node: (route(stages, nodes, 1, us),) for node, nodes in (without or {}).items()},
    )


def distributions(plan: Plan, found: Distribution, nodes: Sequence[str]) -> Distributions:
    """A document of one distribution over nodes of one machine class, all joined with the origin."""
    topology = Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin=ORIGIN),
        nodes=tuple(Node(id=node, threads=1) for node in nodes),
        links=tuple(
            Link(source=ORIGIN, target=node, gbps=1, rtt_us=200) for node in nodes if node != ORIGIN
        ),
    )
    return Distributions(
        schema_version=SCHEMA_VERSION,
        model_name=plan.model_name,
        model_hash=plan.model_hash,
        topology=topology,
        statistics=Statistics(),
        classes=dict.fromkeys(nodes, CLASS),
        plans={CLASS: plan},
        distributions=(found,),
    )


def ask(controller, count: int):
    """Answers to `count` images, and their futures' errors fail the test."""
    futures = [controller.submit({"input.0": image(seed)}) for seed in range(count)]
    return [future.result(LIMIT_S)["output.0"] for future in futures]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, within the limit of an answer."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def check(answers, compiled) -> None:
    for seed, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, compiled(image(seed)))


__all__ = ["image"]
