"""The plugin's runner of two lanes, with kernels that tests delay, hold and break."""

from __future__ import annotations

import itertools
import math
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from lane_kernels import check
from stage_gate import LIMIT_S

from layoutsel.device.threads import available_cores, shares_openmp

pytestmark = pytest.mark.skipif(not shares_openmp(), reason="the runner is part of the plugin")
SURE, UNSURE = 0.0, 1.0


@pytest.mark.parametrize("read_input", [False, True])
@pytest.mark.parametrize("branches", ["bbb", "abb", "bab"])
@pytest.mark.parametrize("answer", ["first", "ordered"])
def test_every_pattern_of_sure_exits(start_lanes, answer, branches, read_input):
    lanes = start_lanes(branches=branches, read_input=read_input)
    for number, levels in enumerate(itertools.product((SURE, UNSURE, None), repeat=3)):
        sure = [e for e, level in enumerate(levels) if level == SURE]
        found = lanes.answer(number, levels, answer)
        check(found, number, [*sure, 3][:1] if answer == "ordered" else [*sure, 3])
        assert answer == "ordered" or found.is_early == (found.exit != 3)
        assert not found.has_nan


@pytest.mark.parametrize("answer", ["first", "ordered"])
def test_no_answer_is_that_of_another_request(start_lanes, answer):
    """10,000 requests with random delays, thresholds and scores."""
    generator = random.Random(7)
    delays_s = (0.0, 0.0, 1e-6, 2e-5, 2e-4)

    def pause(_stage, _number):
        if generator.random() < 0.3:
            time.sleep(generator.choice(delays_s))

    def score(exit_, number):
        return ((number * 7919 + exit_ * 104729) % 1000) / 1000

    lanes = start_lanes(pause, score, kernels=2)
    taken, early = set(), 0
    for number in range(10_000):
        levels = [generator.choice((0.2, 0.5, 0.8, None)) for _ in range(2)]
        sure = [e for e, t in enumerate(levels) if t is not None and score(e, number) >= t]
        found = lanes.answer(number, levels, answer)
        check(found, number, [*sure, 2][:1] if answer == "ordered" else [*sure, 2])
        assert found.score == pytest.approx(score(found.exit, number), abs=1e-6)
        taken.add(found.exit)
        early += found.is_early
    assert taken == {0, 1, 2}
    assert early > 100


def test_an_answer_stops_the_trunk(start_lanes):
    def slow(stage, number):
        if number and stage == "trunk1":
            time.sleep(0.01)

    lanes = start_lanes(slow, kernels=200)
    assert lanes.answer(0, (None, None), "ordered").exit == 2
    whole = lanes.chain.counts()
    assert (whole.trunk, whole.branches) == (600, 400) == (whole.trunk_of, whole.branches_of)
    start_s = time.monotonic()
    check(lanes.answer(1, (SURE, None)), 1, [0])
    assert time.monotonic() - start_s < 1.0
    counts = lanes.chain.counts()
    assert 200 <= counts.trunk < 400
    assert counts.branches == 200
    assert 0 <= counts.trunk_after_ns < 1e9


def test_an_answer_stops_the_branches(start_lanes):
    def slow(stage, number):
        if number and stage == "branch0":
            time.sleep(0.01)

    lanes = start_lanes(slow, kernels=200)
    lanes.answer(0, (None, None))
    check(lanes.answer(1, (None, None)), 1, [2])
    counts = lanes.chain.counts()
    assert counts.trunk == counts.trunk_of
    assert counts.branches < 200
    assert counts.branches_after_ns < 1e9


def test_a_sure_exit_stops_deeper_stages_while_it_waits_for_an_earlier_exit(start_lanes):
    """In order, the second exit, on the trunk's worker, stops the trunk and waits for the first one."""

    def slow(stage, number):
        if number and stage == "branch0":
            time.sleep(0.01)

    lanes = start_lanes(slow, lambda exit_, _: float(exit_ == 1), branches="ba", kernels=10)
    lanes.answer(0, (None, None))
    found = lanes.answer(1, (0.5, 0.5), "ordered")
    check(found, 1, [1])
    assert found.is_early
    counts = lanes.chain.counts()
    assert (counts.trunk, counts.branches) == (30, 10)
    assert (counts.trunk_of, counts.branches_of) == (40, 10)


def test_scores_that_are_no_numbers_are_unsure(start_lanes):
    lanes = start_lanes(scores=lambda e, _: math.nan if e == 0 else 0.0)
    for answer in ("first", "ordered"):
        found = lanes.answer(3, (SURE, None), answer)
        check(found, 3, [2])
        assert found.has_nan or answer == "first"


def test_no_core_is_used_between_requests(start_lanes):
    lanes = start_lanes()
    for number in range(3):
        lanes.answer(number, (SURE, UNSURE))
    lanes.chain.counts()
    time.sleep(0.05)
    before_s = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before_s < 0.05


@pytest.mark.skipif(len(available_cores()) < 2, reason="needs two cores")
def test_lanes_are_pinned_and_the_callers_affinity_stays(start_lanes):
    first, second, *_ = available_cores()
    found = {}
    lanes = start_lanes(
        lambda stage, _: found.setdefault(stage, os.sched_getaffinity(0)),
        cores=((second,), (first,)),
    )
    before = os.sched_getaffinity(0)
    check(lanes.answer(0, (UNSURE, UNSURE)), 0, [2])
    assert os.sched_getaffinity(0) == before
    lanes.chain.counts()
    for stage, cores in found.items():
        assert cores == {second if stage.startswith("trunk") else first}
    assert len(found) == 5


def test_requests_of_several_threads(start_lanes):
    lanes = start_lanes(kernels=2)

    def work(first):
        for number in range(first, first + 300):
            check(lanes.answer(number, (SURE, UNSURE)), number, [0, 2])

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work, 1000 * n) for n in range(3)]:
            done.result(LIMIT_S)
