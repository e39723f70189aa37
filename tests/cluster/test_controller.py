"""Requests through a distribution: by weight, in order, around lost nodes, each answered once."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter

import pytest
from divided import LIMIT_S, PATIENT, ask, check, distribution, image, route, until

from layoutsel.cluster.crossing import CrossingError
from layoutsel.cluster.node_queues import ClusterLimits
from layoutsel.cluster.routing import Epoch, WeightedRoutes
from layoutsel.errors import RunTimeout, WorkerClosed
from tvm_passes.errors import LayoutselError

NODES = ("edge", "a", "b")
EDGE, A, B = (4 * (node,) for node in NODES)
PIPELINE = ("a", "a", "b", "edge")
LIMITS = {"dead": PATIENT, "silent": {"least_s": 3}}
"""A loss that the engine reports needs no deadline; the others wait for theirs."""
WITHOUT = {"a": ("b", "b", "b", "edge"), "b": A, "edge": A}


class TestRouting:
    def test_every_prefix_has_the_shares_of_the_weights(self, stages):
        weights = {A: 0.5, B: 0.3, EDGE: 0.2}
        dealer = WeightedRoutes([route(stages, *each) for each in weights.items()])
        counts: Counter[str] = Counter()
        for number in range(1, 101):
            counts[dealer.next().segments[0].node] += 1
            for nodes, weight in weights.items():
                assert abs(counts[nodes[0]] - weight * number) < 1

    def test_the_plan_without_the_lost_node_comes_first(self, stages):
        found = distribution(stages, {A: 0.5, PIPELINE: 0.5}, {"a": B, "b": EDGE})
        epoch = Epoch(0, found)
        assert epoch.route({"a"}) == found.without["a"][0]
        assert epoch.route({"b"}) == found.without["b"][0]
        assert epoch.route({"a", "b"}) == found.without["b"][0]
        assert epoch.route({"edge"}) == found.routes[0]
        assert epoch.route(NODES) is None
        assert not epoch.avoids(NODES)


class TestWithoutFaults:
    def test_answers_equal_the_whole_model(self, controller, compiled, stages, engine):
        found = distribution(stages, {PIPELINE: 0.5, EDGE: 0.25, B: 0.25})
        one = controller(found, limits=PATIENT)
        check(ask(one, 40), compiled)
        assert one.counts == {"answers": 40}
        nodes = Counter(work.node for work in engine.started)
        assert nodes == {"a": 20, "b": 20 + 10, "edge": 20 + 10}

    def test_further_callers_wait_for_a_place(self, controller, stages, engine):
        one = controller(
            distribution(stages, {A: 1}), limits={"in_flight": 2, "request_s": 2.5, "least_s": 60}
        )
        engine.silent.add("a")
        start = time.monotonic()
        futures = [one.submit({"input.0": image()}) for _ in range(3)]
        assert time.monotonic() - start >= 2.5
        for future in futures:
            with pytest.raises(RunTimeout, match=r"no answer within 2.5 s; .*'s0' on node 'a'"):
                future.result(LIMIT_S)

    def test_an_error_of_a_segment_ends_its_request_alone(self, controller, compiled, stages):
        one = controller(distribution(stages, {PIPELINE: 1}), limits=PATIENT)
        bad = one.submit({"input.0": image()[:, :1]})
        good = one.submit({"input.0": image()})
        with pytest.raises(CrossingError, match=r"segment 's0 on node a'"):
            bad.result(LIMIT_S)
        check([good.result(LIMIT_S)["output.0"]], compiled)
        assert one.counts == {"answers": 1, "failures": 1}

    def test_closing_fails_those_in_progress(self, controller, stages, engine):
        one = controller(distribution(stages, {A: 1}), limits={"least_s": 60})
        engine.silent.add("a")
        future = one.submit({"input.0": image()})
        one.close()
        with pytest.raises(WorkerClosed):
            future.result(LIMIT_S)
        with pytest.raises(WorkerClosed):
            one.submit({"input.0": image()})


@pytest.mark.parametrize("fault", ["dead", "silent"])
class TestLostNodes:
    @pytest.mark.parametrize("segment", ["s0", "s1", "s2"])
    def test_every_request_is_answered_once(
        self, controller, compiled, stages, engine, fault, segment
    ):
        """A node is lost at each segment in turn, in the middle of the requests."""
        one = controller(distribution(stages, {PIPELINE: 1}, WITHOUT), limits=LIMITS[fault])
        check(ask(one, 5), compiled)
        engine.die_at[segment] = fault
        check(ask(one, 30), compiled)
        assert one.counts["answers"] == 35
        assert one.counts["failures"] == 0
        assert one.counts["replays"] >= 1
        assert one.quarantined == {PIPELINE[{"s0": 0, "s1": 2, "s2": 3}[segment]]}

    def test_a_node_that_returns_gets_work(self, controller, compiled, stages, engine, fault):
        one = controller(distribution(stages, {PIPELINE: 1}, WITHOUT), limits=LIMITS[fault])
        lost = getattr(engine, fault)
        lost.add("b")
        check(ask(one, 3), compiled)
        assert one.quarantined == {"b"}
        lost.clear()
        until(lambda: not one.quarantined)
        before = len(engine.started)
        check(ask(one, 3), compiled)
        assert {work.node for work in engine.started[before:]} == set(NODES)

    def test_without_any_route_one_error_names_the_nodes(self, controller, stages, engine, fault):
        one = controller(distribution(stages, {A: 1}, {"a": B}), limits={"stranded_s": 0.3})
        getattr(engine, fault).update(("a", "b"))
        with pytest.raises(LayoutselError, match="no route is left: a, b lost"):
            one.submit({"input.0": image()}).result(LIMIT_S)

    def test_the_origin_computes_alone(self, controller, compiled, stages, engine, fault):
        one = controller(
            distribution(stages, {PIPELINE: 1}, {"a": B}),
            fallback=lambda tensors: {"output.0": compiled(tensors["input.0"])},
        )
        getattr(engine, fault).update(("a", "b"))
        check(ask(one, 4), compiled)
        assert one.counts["fallbacks"] == 4


class TestSlowNodes:
    def test_a_late_result_is_dropped_and_counted(self, controller, compiled, stages, engine):
        one = controller(distribution(stages, {A: 1}, {"a": B}), limits={"least_s": 2})
        engine.slow_s["a"] = LIMIT_S
        check(ask(one, 2), compiled)
        assert one.counts["answers"] == 2
        engine.awake.set()
        until(lambda: one.counts["late"] == 2)
        assert one.counts.pop("misses") >= 1
        assert one.counts == {"answers": 2, "late": 2, "faults": 1, "replays": 2}

    def test_replays_leave_slow_nodes_more_time(self):
        limits = ClusterLimits(least_s=0.1, factor=3, rtt_s=0.01)
        assert limits.patience_s(1000, 1) == pytest.approx(0.11)
        assert limits.patience_s(100_000, 1) == pytest.approx(0.31)
        assert limits.patience_s(100_000, 4) == pytest.approx(8 * 0.31)

    def test_a_request_survives_nodes_that_are_all_slow(self, controller, compiled, stages, engine):
        """Every node misses its deadline, returns after its quarantine, and misses it again."""
        one = controller(distribution(stages, {A: 1}, {"a": B, "b": EDGE, "edge": A}))
        engine.slow_s.update(dict.fromkeys(NODES, 2.0))
        check(ask(one, 3), compiled)
        assert one.counts["failures"] == 0

    def test_slow_is_better_than_nothing(self, controller, compiled, stages, engine):
        one = controller(distribution(stages, {A: 1}))
        engine.slow_s["a"] = LIMIT_S
        future = one.submit({"input.0": image(0)})
        until(lambda: one.counts["misses"] >= 3)
        engine.awake.set()
        check([future.result(LIMIT_S)["output.0"]], compiled)
        assert not one.quarantined
        assert one.counts["faults"] == 0

    def test_a_flapping_node_waits_longer_each_time(
        self, controller, compiled, stages, engine, caplog
    ):
        one = controller(distribution(stages, {A: 1}, {"a": B}), limits=PATIENT)
        waits = []
        for _ in range(2):
            start = time.monotonic()
            engine.dead.add("a")
            check(ask(one, 1), compiled)
            engine.dead.clear()
            until(lambda: not one.quarantined)
            waits.append(time.monotonic() - start)
        assert waits[0] >= 1
        assert waits[1] >= 2
        first, second = map(float, re.findall(r"'a' gets no work for (\S+) s", caplog.text))
        assert first == 1
        assert second >= 2 * first


def test_an_epoch_replaces_another_without_a_pause(controller, compiled, stages, engine):
    """Requests come all the time, while the distribution changes ten times."""
    ways = [distribution(stages, {nodes: 1}) for nodes in (PIPELINE, A, B, EDGE, PIPELINE[::-1])]
    one = controller(ways[0], limits=PATIENT)
    stop, futures = threading.Event(), []

    def send() -> None:
        while not stop.is_set():
            futures.append(one.submit({"input.0": image(len(futures))}))

    sender = threading.Thread(target=send)
    sender.start()
    for number in range(10):
        until(lambda: len(futures) > 3 * number)  # noqa: B023 - called at once
        time.sleep(0.02)
        assert one.switch(ways[(number + 1) % len(ways)]) == number + 1
    until(lambda: len(futures) > 30)
    stop.set()
    sender.join(LIMIT_S)
    check([future.result(LIMIT_S)["output.0"] for future in futures], compiled)
    assert one.counts == {"answers": len(futures)}
