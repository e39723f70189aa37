"""Links of the origin, one of which a network of two devices uses."""

from dataclasses import replace

import numpy as np
import pytest

from layoutsel.cluster.links import MessageRoutes
from layoutsel.search.link_choice import over_link, routes_by_link, topologies_by_link
from layoutsel.search.offload.comparisons import placements_of
from layoutsel.search.offload.projection import project
from layoutsel.search.offload.search import unbiased
from layoutsel.search.offload.settings import OffloadLimits
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.two_devices import two_devices
from tests.search.offload_problems import (
    LINKS,
    drawn_choice,
    placements,
    planner_us,
    priced,
    small_space,
)
from tests.search.spaces import routes_over, routes_over_links
from tvm_passes.errors import LayoutselError

WAYS = {
    "sw": ["n0", "sw", "n1"],
    "n1": ["n0", "n1"],
    "cell": ["n0", "cell", "mast", "n1"],
}
"""Vertices of the way over each link of :func:`routes_over_links`."""


def test_each_link_is_a_way_of_its_own_and_dead_ends_are_none():
    found = routes_by_link(routes_over_links())
    assert {name: list(one.route("n0", "n1").vertices) for name, one in found.items()} == WAYS
    assert {name: list(one.route("n1", "n0").vertices)[::-1] for name, one in found.items()} == WAYS


def test_a_single_way_is_the_whole_topology():
    routes = routes_over(2)
    assert topologies_by_link(routes.topology) == {"": routes.topology}
    assert over_link(routes.topology, routes.statistics, "") == (
        routes.topology,
        routes.statistics,
    )


def test_the_state_of_a_link_stays_with_it():
    routes = routes_over_links()
    for name, one in routes_by_link(routes).items():
        assert [state.target for state in one.statistics.links] == ["cell"] * (name == "cell")
        assert one.statistics.nodes == routes.statistics.nodes
        one.statistics.check(one.topology)


def test_the_quickest_way_of_a_topology_is_one_of_its_links():
    routes = routes_over_links()
    lines = [one.route("n0", "n1").line for one in routes_by_link(routes).values()]
    assert routes.route("n0", "n1").line in lines


@pytest.mark.parametrize(
    ("routes", "known"), [(routes_over_links, "'sw', 'n1', 'cell'"), (lambda: routes_over(2), "no")]
)
def test_an_unknown_link_is_an_error(routes, known):
    one = routes()
    with pytest.raises(LayoutselError, match=f"link 'nowhere': got no such link.*expected {known}"):
        over_link(one.topology, one.statistics, "nowhere")


def test_named_links_of_the_command_cost_what_single_ones_do():
    texts = {"wifi": "20Mbit/s,5ms", "cell": "80Mbit/s,30ms"}
    both = MessageRoutes(*two_devices([f"{name}={text}" for name, text in texts.items()]))
    found = routes_by_link(both)
    assert found.keys() == texts.keys()
    for name, text in texts.items():
        alone = MessageRoutes(*two_devices(text))
        for ends in (("device", "server"), ("server", "device")):
            assert found[name].route(*ends).line == alone.route(*ends).line


@pytest.mark.parametrize(
    "texts",
    [
        ["20Mbit/s,5ms", "80Mbit/s,30ms"],
        ["a=20Mbit/s,5ms", "80Mbit/s,30ms"],
        ["a=20Mbit/s,5ms", "a=80Mbit/s,30ms"],
        ["server=20Mbit/s,5ms"],
        ["=20Mbit/s,5ms"],
    ],
)
def test_several_links_have_names(texts):
    with pytest.raises(LayoutselError, match=r"--link .*: expected a name of its own"):
        two_devices(texts)


def test_a_link_that_is_no_name_is_rejected():
    with pytest.raises(LayoutselError, match=r"nodes\[2\]\.id: got 'a b'"):
        two_devices(["a b=20Mbit/s,5ms"])


def test_placements_have_their_best_link():
    space = small_space((2, 1))
    used = set()
    for seed in range(12):
        architecture = drawn_choice(space, seed).architecture
        prices = priced(space, seed, several_links=True)
        best = {one.name: one for one in placements_of(space, architecture, prices)}
        for name, one in best.items():
            every = []
            for routes in prices.links.values():
                alone = priced(space, seed, several_links=True)
                alone.links = {"": routes}
                alone.routes = routes
                every += [
                    other.us
                    for other in placements_of(space, architecture, alone)
                    if other.name == name
                ]
            assert one.us == pytest.approx(min(every), rel=1e-12)
        used.add(best["second device"].link)
    assert used <= set(LINKS)


def test_a_network_within_its_least_time_has_the_quickest_link_for_its_bytes():
    used = []
    for channels in (2, 12, 96):
        space = small_space((1,), ("conv3",), channels)
        shape, prices = SupernetShape.of(space), priced(space, several_links=True)
        state = unbiased(shape, ("float32",), len(prices.links))
        # Fewer channels than all are far less probable than any device or link.
        gates = {name: np.full_like(one, 0.9999) for name, one in state.channels.items()}
        whole = replace(drawn_choice(space, 0), precision="float32")
        whole = replace(whole, kept={tensor: tuple(range(channels)) for tensor in whole.kept})
        every = [
            replace(whole, devices=devices, link=link)
            for devices in placements(space, whole.architecture)
            for link in prices.links
        ]
        best = min(every, key=lambda one: planner_us(space, prices, one)[0])
        limits = OffloadLimits(us=planner_us(space, prices, best)[0] * (1 + 1e-9))
        found = project(shape, prices.times(shape), replace(state, channels=gates), limits).choice
        assert (found.link, found.devices) == (best.link, best.devices)
        used.append(found.link)
    assert used == ["sw", "cell", "n1"]
