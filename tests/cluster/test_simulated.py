"""Command, tables, charts and documents of simulations."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from topologies import chain, distributions, star

from layoutsel.cli.cluster_simulate import parse_incidents
from layoutsel.cluster.gantt import write_gantt
from layoutsel.cluster.segments import Metric
from layoutsel.cluster.simulate import Incident, Load, simulate
from layoutsel.cluster.simulated import shown_window, with_simulated
from layoutsel.cluster.simulated_attempt import Bar
from tvm_passes.errors import LayoutselError


def two_replicas():
    """Half of the requests on each of two nodes, which can do without each other."""
    half = {name: chain([name], [1000.0], weight=0.5) for name in ("n1", "n2")}
    others = {"n1": [half["n2"]], "n2": [half["n1"]]}
    made = distributions(star(3, gbps=8.0), list(half.values()), others)
    metrics = {
        "latency": Metric(unit="us", predicted=1000.0),
        "throughput": Metric(unit="Hz", predicted=2000.0),
    }
    return replace(made, distributions=(replace(made.distributions[0], metrics=metrics),))


def test_metrics_are_those_of_one_request_and_of_many():
    made = two_replicas()
    for load, name, other in (
        (Load(requests=20, in_flight=1), "latency", "throughput"),
        (Load(requests=200, in_flight=8), "throughput", "latency"),
    ):
        found = simulate(made, made.distributions[0], load)
        told = with_simulated(made, made.distributions[0], load, found).distributions[0].metrics
        assert told[name].simulated == pytest.approx(told[name].predicted, rel=0.01)
        assert told[other].simulated is None


def test_a_chart_shows_the_first_requests_or_those_around_a_loss():
    made = two_replicas()
    first, last = shown_window(made.distributions[0], [])
    assert first == 0
    assert last == 8000
    losses = [Incident(node="n1", at_us=50_000.0), Incident(node="n1", at_us=9.0, joins=True)]
    first, last = shown_window(made.distributions[0], losses)
    assert first == 49_000
    assert last == 57_000


def test_a_chart_has_a_row_for_each_resource_and_a_bar_for_each_occupation(tmp_path):
    bars = [
        Bar("n-1", 0.0, 10_000.0, 0, "head"),
        Bar("link n-1>s", 10_000.0, 12_000.0, 0, "<head.0>"),
        Bar("n-1", 10_000.0, 20_000.0, 1, "head"),
    ]
    write_gantt(bars, tmp_path / "a.svg", title="a & b", losses_us={"n-1": 15_000.0, "x": 9e9})
    tree = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    drawn = [one for one in tree.iter(f"{space}rect") if one.find(f"{space}title") is not None]
    assert [one.find(f"{space}title").text for one in drawn][1].startswith(
        "request 0, <head.0>: 10"
    )
    left, top, width = ([float(one.get(key)) for one in drawn] for key in ("x", "y", "width"))
    assert left[0] + width[0] == pytest.approx(left[2], abs=0.02)
    assert width[0] == pytest.approx(5 * width[1], abs=0.1)
    assert top[0] == top[2] < top[1]
    texts = [one.text for one in tree.iter(f"{space}text")]
    assert "n-1 lost" in texts
    assert "x lost" not in texts


def test_a_chart_of_nothing_is_a_chart(tmp_path):
    write_gantt([], tmp_path / "a.svg", title="none")
    ElementTree.fromstring((tmp_path / "a.svg").read_text())


def test_losses_are_a_node_and_a_time():
    (one,) = parse_incidents("--kill", ["a@b@1.5m"])
    assert one == Incident(node="a@b", at_us=90e6)
    (one,) = parse_incidents("--join", ["srv@2s"])
    assert one.joins
    for text in ("srv", "@3s", "srv@", "srv@soon", "srv@-1s"):
        with pytest.raises(LayoutselError, match=re.escape(text.rpartition("@")[2] or text)):
            list(parse_incidents("--kill", [text]))


def test_a_summary_is_json_without_unknown_figures():
    alone = distributions(star(2), [chain(["n1"], [1000.0])])
    loss = Incident(node="n1", at_us=0.0)
    found = simulate(alone, alone.distributions[0], Load(requests=3, in_flight=1), incidents=[loss])
    told = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert told["lost"] == 3
    assert told["p50_us"] is None
    assert "bars" not in told
