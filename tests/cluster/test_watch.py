"""Statistics of a running distribution, and the decision to replace it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from divided import distribution, network, plan_in_atoms

from layoutsel.cluster.events import RequestAnswered, TensorsSent
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.watch import (
    SILENT_S,
    SNAPSHOTS,
    TIME_CONSTANT_S,
    MovingMean,
    Observations,
    Replacement,
    Replanning,
)


def test_a_mean_of_equal_values_is_that_value():
    mean = MovingMean()
    for time_s in range(10):
        mean.add(7.0, float(time_s))
    assert (mean.mean, mean.sigma, mean.runs) == (7.0, 0.0, 10)


def test_a_mean_follows_a_step_within_a_few_time_constants():
    mean = MovingMean()
    times = np.arange(0, 60, 0.1)
    for time_s in times:
        mean.add(100.0 if time_s < 30 else 200.0, time_s)
        if time_s == pytest.approx(30 + TIME_CONSTANT_S):
            assert mean.mean == pytest.approx(200 - 100 / math.e, rel=0.02)
    assert mean.mean == pytest.approx(200, rel=0.01)


def test_the_spread_is_that_of_normal_values():
    mean = MovingMean()
    values = np.random.default_rng(0).normal(50, 4, 3000)
    found = []
    for number, value in enumerate(values):
        mean.add(value, 0.01 * number)
        found.append(mean.sigma)
    # The mean absolute deviation is a little larger than the median one.
    assert 4 < np.mean(found[1000:]) < 5.5


def sent(bytes_: int, us: float, start_s: float = 0.0, ends=("a", "b")) -> TensorsSent:
    return TensorsSent(
        request=0,
        source=ends[0],
        destination=ends[1],
        tensors=("t.0",),
        bytes=bytes_,
        start_s=start_s,
        us=us,
    )


@pytest.fixture
def now_s(monkeypatch):
    """The present time, in a list."""
    now_s = [20.0]
    monkeypatch.setattr("layoutsel.cluster.watch.time.monotonic", lambda: now_s[0])
    return now_s


@pytest.mark.usefixtures("now_s")
def test_links_are_told_from_messages_of_both_sizes():
    """1 Gbit/s and 400 µs one way."""
    found = Observations()
    for number in range(20):
        found(sent(1000, 400 + 8e-3 * 1000, number))
        found(sent(1 << 20, 400 + 8e-3 * (1 << 20), number))
    (link,) = found.snapshot().links
    assert {link.source, link.target} == {"a", "b"}
    assert link.gbps == pytest.approx(1, rel=0.01)
    assert link.rtt_us == pytest.approx(816, rel=0.01)


@pytest.mark.usefixtures("now_s")
def test_the_slower_direction_counts():
    found = Observations()
    found(sent(1 << 20, 1e4, 19.0))
    found(sent(1 << 20, 4e4, 19.0, ends=("b", "a")))
    (link,) = found.snapshot().links
    assert link.gbps == pytest.approx(8e-3 * (1 << 20) / 4e4)


def test_a_silent_link_is_forgotten(now_s):
    """It may be as fast as it was, and only a message over it can tell."""
    found = Observations()
    found(sent(1 << 20, 4e5, 19.0))
    assert found.snapshot().links[0].gbps == pytest.approx(8e-3 * (1 << 20) / 4e5)
    now_s[0] += SILENT_S + 60  # the first observation has no weight any more
    assert found.snapshot().links == ()
    found(sent(1 << 20, 1e4, now_s[0]))
    assert found.snapshot().links[0].gbps == pytest.approx(8e-3 * (1 << 20) / 1e4, rel=0.1)


def test_latencies_are_quantiles(now_s):
    now_s[0] = 10.0
    found = Observations()
    for number in range(100):
        found(RequestAnswered(request=number, start_s=number / 10, us=1000.0 + number, attempts=1))
    requests = found.snapshot().requests
    assert (requests.p50_us, requests.p95_us, requests.p99_us) == (1050, 1095, 1099)
    assert requests.rate_hz == pytest.approx(10)
    assert requests.in_flight == pytest.approx(10 * 1049.5e-6, rel=1e-3)


class TestReplanning:
    @pytest.fixture
    def better(self):
        stages = plan_in_atoms(network()).stages
        return distribution(stages, {4 * ("edge",): 1})

    def decide(self, better, gains) -> list[bool]:
        """Decisions for a gain and sigma at each snapshot."""
        proposals = iter(
            None if gain is None else Replacement(distribution=better, gain=gain, sigma=sigma)
            for gain, sigma in gains
        )
        watch = Replanning(lambda _now: next(proposals))
        return [watch.consider(Statistics()) is better for _ in gains]

    def test_a_lasting_gain_changes_it_once(self, better):
        decisions = self.decide(better, [(0.1, 0.01)] * (SNAPSHOTS + 1))
        assert decisions == [False] * (SNAPSHOTS - 1) + [True, False]

    @pytest.mark.parametrize("gain", [(0.04, 0.0), (0.2, 0.11), (None, 0)])
    def test_small_or_uncertain_gains_change_nothing(self, better, gain):
        assert not any(self.decide(better, [gain] * 10))

    def test_an_interrupted_gain_changes_nothing(self, better):
        assert not any(self.decide(better, [(0.1, 0), (0.1, 0), (None, 0)] * 4))

    def test_a_change_is_confirmed_by_a_gain_that_is_still_there(self, better):
        gains = iter([0.1, 0.01, None])
        watch = Replanning(
            lambda _now: (
                None
                if (gain := next(gains)) is None
                else Replacement(distribution=better, gain=gain, sigma=0.0)
            )
        )
        assert [watch.confirms(Statistics()) for _ in range(3)] == [True, False, False]
