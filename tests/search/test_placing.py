"""A network with a placement costs what the planner of distributions says, for inference and training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutsel.cluster.links import MessageRoutes
from layoutsel.search.parts import INPUT, SUM, parts_of
from layoutsel.search.placing import (
    INFERENCE,
    TRAINING_STEP,
    classes_of,
    cluster_of,
    placed,
    placed_us,
)
from layoutsel.search.prices import PriceTable, UnpricedPart
from tests.cluster.clusters import star
from tests.search.spaces import cells_space, random_prices, routes_over

ORIGIN = "n0"


def computed_us(table, routes, part, node):
    us = table.us(part.signature, classes_of(routes.topology)[node])
    return us * routes.statistics.slowdown(node)


def sent_us(routes, size, source, destination, *, made=True, read=True):
    """Time of a message, and of the engine for it: inputs are not made, and results not read."""
    slow, engine = routes.statistics.slowdown, routes.engine
    total = routes.route(source, destination).us(size) + engine.message_us
    total += made * engine.wake_us * slow(source)
    return total + (made and read) * (engine.segment_us + engine.call_us * slow(destination))


def expected_us(graph, nodes, table, routes):
    """Times of all parts, of each tensor to each other node that reads it, and of the engine."""
    total = sum(computed_us(table, routes, part, nodes[part.name]) for part in graph.parts)
    total += routes.engine.request_us
    total += routes.engine.call_us * routes.statistics.slowdown(nodes[graph.parts[0].name])
    sends = set()
    for part in graph.parts:
        for tensor in part.inputs:
            sends.add((tensor, ORIGIN if tensor == INPUT else nodes[tensor], nodes[part.name]))
    last = graph.parts[-1].name
    sends.add((last, nodes[last], ORIGIN))
    for tensor, source, destination in sends:
        if source != destination:
            flags = {"made": tensor != INPUT, "read": tensor != last}
            total += sent_us(routes, 4 * np.prod(graph.shape(tensor)), source, destination, **flags)
    return total


def returned_us(graph, nodes, table, routes):
    """Times of all gradients, and of each gradient to each other node that reads it."""
    total, sends = 0.0, {(None, ORIGIN, nodes[graph.parts[-1].name])}
    for part in graph.parts:
        passes = (part.signature.weight_bytes > 0) + (INPUT not in part.inputs)
        total += passes * computed_us(table, routes, part, nodes[part.name])
        sends |= {
            (part.name, nodes[part.name], nodes[tensor])
            for tensor in part.inputs
            if tensor != INPUT
        }
    for name, source, destination in sends:
        shape = graph.shape(graph.parts[-1].name if name is None else graph.by_name[name].inputs[0])
        if source != destination:
            made = name is not None
            total += sent_us(routes, 4 * np.prod(shape), source, destination, made=made)
    return total


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), inner=st.integers(1, 3), count=st.integers(1, 4))
def test_a_placed_network_costs_its_parts_and_each_tensor_once_for_each_reading_node(
    seed, inner, count
):
    space, random = cells_space(inner), np.random.default_rng(seed)
    routes = routes_over(count)
    table = random_prices(space, routes.topology, seed)
    graph = parts_of(space, space.draw(random))
    nodes = {part.name: f"n{random.integers(count)}" for part in graph.parts}
    forward = expected_us(graph, nodes, table, routes)
    for work, expected in (
        (INFERENCE, forward),
        (TRAINING_STEP, forward + returned_us(graph, nodes, table, routes)),
    ):
        cluster = cluster_of(graph, table, routes, work)
        assert placed_us(cluster, placed(graph, nodes, work)) == pytest.approx(expected, rel=1e-9)


def test_the_drawn_networks_have_every_operation():
    space, random = cells_space(3), np.random.default_rng(0)
    used = {
        part.signature.operation
        for _ in range(100)
        for part in parts_of(space, space.draw(random)).parts
    }
    named = {name for cell in space.cells for name in cell.operations} - {"none", "skip"}
    assert used == named | {SUM, "head"}


def test_a_part_without_a_price_is_named():
    space, topology = cells_space(1), star(2)
    graph = parts_of(space, space.draw(np.random.default_rng(0)))
    with pytest.raises(UnpricedPart, match="machine class 'here': got those of none"):
        cluster_of(graph, PriceTable(classes={}), MessageRoutes(topology))
    table = random_prices(cells_space(1, ("conv5",)), topology, 0)
    other = parts_of(space, next(a for a in space.architectures() if ("conv1",) in a.operations))
    with pytest.raises(UnpricedPart, match="no price of conv1 "):
        cluster_of(other, table, MessageRoutes(topology))
