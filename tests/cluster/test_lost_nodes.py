"""Simulated losses of nodes: detection, replay on other routes, and return."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topologies import chain, distributions, star

from layoutsel.cluster.simulate import Incident, Load, simulate
from tvm_passes.errors import LayoutselError

ALL = (0.0, 1e12)


def pair(without=("n1", "n2")):
    """Half of the requests on each of two nodes, 100 µs of work; either can do without the other."""
    half = {name: chain([name], [100.0], weight=0.5) for name in ("n1", "n2")}
    others = {name: [half["n2" if name == "n1" else "n1"]] for name in without}
    return distributions(star(3, gbps=80.0), list(half.values()), others)


def simulated(made, incidents, load=None, **options):
    load = load or Load(requests=1000, rate_hz=8000, poisson=False)
    return simulate(made, made.distributions[0], load, incidents=incidents, **options)


def lost(node="n1", at_us=20_000.0):
    return Incident(node=node, at_us=at_us)


def test_requests_of_a_lost_node_start_again_elsewhere():
    found = simulated(pair(), [lost()], detection_us=1000.0, window_us=ALL)
    assert found.lost == 0
    assert all(end is not None for end in found.ends_us)
    # In a millisecond, four of eight requests go to the lost node, and one was there before.
    assert found.replayed == pytest.approx(4, abs=1)
    assert 1000 < found.recovery_us < 3000
    last = max(bar.end_us for bar in found.bars if bar.resource == "n1")
    assert last <= 20_000
    assert found.p50_us < 150


def test_latencies_count_from_the_first_attempt():
    late = simulated(pair(), [lost()], detection_us=50_000.0)
    early = simulated(pair(), [lost()], detection_us=100.0)
    waits = [end - start for start, end in zip(late.arrivals_us, late.ends_us, strict=True)]
    assert max(waits) > 49_000
    assert late.replayed > 100
    assert early.replayed < 10
    assert late.recovery_us > 49_000
    assert early.recovery_us < 1000


def test_the_deadline_of_the_longest_segment_is_the_default():
    found = simulated(pair(), [lost()])
    assert 300 < found.recovery_us < 1000


def test_requests_without_another_route_are_lost():
    alone = distributions(star(2), [chain(["n1"], [100.0])])
    found = simulated(alone, [lost()], detection_us=1000.0)
    assert 0 < found.lost < 1000
    assert sum(end is None for end in found.ends_us) == found.lost
    assert all(end is None for end in found.ends_us[-100:])
    closed = simulated(alone, [lost()], Load(requests=1000, in_flight=4), detection_us=1000.0)
    assert 0 < closed.lost < 1000


def test_a_node_that_returns_works_again():
    back = Incident(node="n1", at_us=40_000.0, joins=True)
    found = simulated(pair(), [lost(), back], detection_us=1000.0, window_us=ALL)
    bars = [bar for bar in found.bars if bar.resource == "n1"]
    assert not [bar for bar in bars if 20_000 < bar.start_us < 40_000]
    after = [bar for bar in bars if bar.start_us >= 40_000]
    assert len(after) == pytest.approx((1000 - 320) / 2, abs=3)
    assert found.lost == 0


def test_a_return_before_the_detection_replays_what_was_lost():
    back = Incident(node="n1", at_us=20_500.0, joins=True)
    found = simulated(pair(), [lost(), back], detection_us=10_000.0)
    assert found.lost == 0
    assert found.replayed >= 1
    assert found.recovery_us < 2000


def test_the_second_loss_leaves_routes_without_both():
    routes = [chain([n], [50.0], weight=1 / 3) for n in ("n1", "n2", "n3")]
    without = {f"n{i}": [one for j, one in enumerate(routes, start=1) if j != i] for i in (1, 2, 3)}
    made = distributions(star(4, gbps=80.0), routes, without)
    found = simulated(made, [lost(), lost("n2", 40_000.0)], detection_us=500.0, window_us=ALL)
    assert found.lost == 0
    late = {
        bar.resource for bar in found.bars if bar.start_us > 41_000 and "link" not in bar.resource
    }
    assert late == {"n3"}


def test_a_node_without_work_is_lost_unnoticed():
    calm, quiet = simulated(pair(), []), simulated(pair(), [lost("n1", 1e9)])
    assert quiet.ends_us == calm.ends_us
    idle = distributions(star(4), [chain(["n1"], [10.0])])
    assert simulated(idle, [lost("n3")]).replayed == 0


def test_the_origin_and_unknown_nodes_cannot_be_lost():
    for name in ("n0", "s", "n7"):
        with pytest.raises(LayoutselError, match=rf"cannot lose node '{name}'.*one of n1, n2$"):
            simulated(pair(), [lost(name)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Incident,
            node=st.sampled_from(["n1", "n2"]),
            at_us=st.floats(0, 12_000),
            joins=st.booleans(),
        ),
        max_size=6,
    ),
    st.floats(0, 5000),
    st.sampled_from([None, 2, 8]),
)
def test_every_request_ends_or_is_lost_whatever_happens(incidents, detection_us, limit):
    load = Load(requests=100, rate_hz=1e4, in_flight=limit)
    found = simulated(pair(), incidents, load, detection_us=detection_us, window_us=ALL)
    ended = [end for end in found.ends_us if end is not None]
    assert len(ended) + found.lost == 100
    for start, end in zip(found.arrivals_us, found.ends_us, strict=True):
        assert end is None or end >= start + 100
    if not incidents or all(one.joins for one in incidents):
        assert found.lost == found.replayed == 0
    assert found.lost == 0 or {one.node for one in incidents if not one.joins} == {"n1", "n2"}
    assert math.isfinite(found.recovery_us)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 12_000), st.floats(0, 5000))
def test_a_loss_leaves_no_bytes_behind(at_us, detection_us):
    made = pair()
    load = Load(requests=200, rate_hz=1e4, in_flight=4)
    found = simulated(made, [lost(at_us=at_us)], load, detection_us=detection_us)
    # Each request holds one input of 10 bytes at the origin, however often it starts.
    assert found.peak_bytes["n0"] <= 40
