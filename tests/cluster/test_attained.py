"""Throughput that distributions attain: measured under full load alone, forgotten slowly."""

from __future__ import annotations

import pytest
from divided import network, plan_in_atoms, segments

from layoutsel.cluster import attained
from layoutsel.cluster.attained import WINDOW_S, AttainedRate, AttainedRatios
from layoutsel.cluster.engine import RunTimes
from layoutsel.cluster.events import RequestAnswered, SegmentRan

PERIOD_S = 0.05
NODES = frozenset({"edge", "srv"})


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock of the module, as a list of its present time."""
    now_s = [1000.0]
    monkeypatch.setattr(attained.time, "monotonic", lambda: now_s[0])
    return now_s


@pytest.fixture(scope="module")
def segment():
    stages = plan_in_atoms(network()).stages
    return segments(stages, ("edge",) * len(stages), 100)[0]


def run(rate: AttainedRate, clock, segment, epoch: int, seconds: float, waiting: float) -> None:
    """An answer each period, of which a stream waits for a share."""
    times = RunTimes(queue_us=0, unpack_us=0, compute_us=1, pack_us=0)
    for request in range(round(seconds / PERIOD_S)):
        start_s = clock[0]
        clock[0] += PERIOD_S
        end = {"request": request, "epoch": epoch, "segment": segment, "end_s": clock[0]}
        rate(SegmentRan(**end, times=times))
        rate(RequestAnswered(request=request, start_s=start_s, us=1e6 * PERIOD_S, attempts=1))
        rate.waited(clock[0] - waiting * PERIOD_S, clock[0])


def test_it_is_that_of_the_current_epoch_after_a_while(clock, segment):
    rate = AttainedRate()
    assert rate.hz() is None
    run(rate, clock, segment, 0, WINDOW_S, 0.9)
    assert rate.hz() is None
    run(rate, clock, segment, 0, 2, 0.9)
    assert rate.hz() == pytest.approx(1 / PERIOD_S, abs=1 / WINDOW_S)
    run(rate, clock, segment, 1, WINDOW_S, 0.9)
    assert rate.hz() is None
    run(rate, clock, segment, 1, 2, 0.9)
    assert rate.hz() == pytest.approx(1 / PERIOD_S, abs=1 / WINDOW_S)


def test_without_full_load_it_is_unknown(clock, segment):
    rate = AttainedRate()
    run(rate, clock, segment, 0, 10, 0.2)
    assert rate.hz() is None
    run(rate, clock, segment, 0, 10, 0.9)
    assert rate.hz() is not None
    clock[0] += WINDOW_S  # no request any more
    assert rate.hz() is None


def test_a_pause_lowers_it(clock, segment):
    """A stream that waits 2 s for one answer counts these 2 s."""
    rate = AttainedRate()
    run(rate, clock, segment, 0, 10, 0.9)
    clock[0] += WINDOW_S / 2
    rate.waited(clock[0] - WINDOW_S / 2, clock[0])
    assert rate.hz() == pytest.approx(0.5 / PERIOD_S, abs=1 / WINDOW_S)


def test_ratios_are_those_of_the_same_nodes_and_fade(clock):
    ratios = AttainedRatios()
    ratios.add(NODES, 50, 100)
    assert ratios.ratio(NODES) == 0.5
    assert ratios.ratio(frozenset({"edge"})) == 1
    clock[0] += 600
    assert 0.7 < ratios.ratio(NODES) < 0.8
    clock[0] += 6000
    assert ratios.ratio(NODES) == pytest.approx(1, abs=1e-3)
    ratios.add(NODES, 0, 100)
    assert ratios.ratio(NODES) == pytest.approx(1, abs=1e-3)
