"""The plugin's runner of two lanes, with kernels that tests delay, hold and break."""

from __future__ import annotations

import itertools
import math
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from exit_models import assert_ends_well
from lane_kernels import PythonLanes
from stage_gate import LIMIT_S

from layoutsel.device.threads import available_cores, shares_openmp
from layoutsel.errors import LayoutselError, RunTimeout

pytestmark = pytest.mark.skipif(not shares_openmp(), reason="the runner is part of the plugin")
SURE, UNSURE = 0.0, 1.0


def check(found, number, exits):
    """Check that an answer is that of one of some exits for the request of that number."""
    assert found is not None
    assert found.exit in exits
    assert found.values.tolist() == [[number, found.exit, 0]]
    assert found.label == number


def serving() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "layoutsel-serve"}


@pytest.fixture
def start():
    """Function that makes lanes, as :class:`PythonLanes` does; their threads end with the test."""
    before, made = serving(), []

    def started(*arguments, **options) -> PythonLanes:
        made.append(PythonLanes(*arguments, **options))
        return made[-1]

    yield started
    for lanes in made:
        lanes.chain.close()
    end = time.monotonic() + LIMIT_S
    while serving() - before and time.monotonic() < end:  # a thread may have been abandoned
        time.sleep(0.01)
    assert serving() <= before


@pytest.mark.parametrize("read_input", [False, True])
@pytest.mark.parametrize("branches", ["bbb", "abb", "bab"])
@pytest.mark.parametrize("answer", ["first", "ordered"])
def test_every_pattern_of_sure_exits(start, answer, branches, read_input):
    lanes = start(branches=branches, read_input=read_input)
    for number, levels in enumerate(itertools.product((SURE, UNSURE, None), repeat=3)):
        sure = [e for e, level in enumerate(levels) if level == SURE]
        found = lanes.answer(number, levels, answer)
        check(found, number, [*sure, 3][:1] if answer == "ordered" else [*sure, 3])
        assert answer == "ordered" or found.is_early == (found.exit != 3)
        assert not found.has_nan


@pytest.mark.parametrize("answer", ["first", "ordered"])
def test_no_answer_is_that_of_another_request(start, answer):
    """10,000 requests with random delays, thresholds and scores."""
    generator = random.Random(7)
    delays_s = (0.0, 0.0, 1e-6, 2e-5, 2e-4)

    def pause(_stage, _number):
        if generator.random() < 0.3:
            time.sleep(generator.choice(delays_s))

    def score(exit_, number):
        return ((number * 7919 + exit_ * 104729) % 1000) / 1000

    lanes = start(pause, score, kernels=2)
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


def test_an_answer_stops_the_trunk(start):
    def slow(stage, number):
        if number and stage == "trunk1":
            time.sleep(0.01)

    lanes = start(slow, kernels=200)
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


def test_an_answer_stops_the_branches(start):
    def slow(stage, number):
        if number and stage == "branch0":
            time.sleep(0.01)

    lanes = start(slow, kernels=200)
    lanes.answer(0, (None, None))
    check(lanes.answer(1, (None, None)), 1, [2])
    counts = lanes.chain.counts()
    assert counts.trunk == counts.trunk_of
    assert counts.branches < 200
    assert counts.branches_after_ns < 1e9


def test_a_sure_exit_stops_deeper_stages_while_it_waits_for_an_earlier_exit(start):
    """In order, the second exit, on the trunk's worker, stops the trunk and waits for the first one."""

    def slow(stage, number):
        if number and stage == "branch0":
            time.sleep(0.01)

    lanes = start(slow, lambda exit_, _: float(exit_ == 1), branches="ba", kernels=10)
    lanes.answer(0, (None, None))
    found = lanes.answer(1, (0.5, 0.5), "ordered")
    check(found, 1, [1])
    assert found.is_early
    counts = lanes.chain.counts()
    assert (counts.trunk, counts.branches) == (30, 10)
    assert (counts.trunk_of, counts.branches_of) == (40, 10)


def test_scores_that_are_no_numbers_are_unsure(start):
    lanes = start(scores=lambda e, _: math.nan if e == 0 else 0.0)
    for answer in ("first", "ordered"):
        found = lanes.answer(3, (SURE, None), answer)
        check(found, 3, [2])
        assert found.has_nan or answer == "first"


@pytest.mark.parametrize("answer", ["first", "ordered"])
def test_a_branch_that_hangs_does_not_hang_its_caller(start, answer):
    begun, release, is_stuck = threading.Event(), threading.Event(), False

    def hang(stage, _number):
        if is_stuck and stage == "branch0":
            begun.set()
            release.wait(LIMIT_S)
        if is_stuck and stage == "trunk2":
            assert begun.wait(LIMIT_S)

    lanes = start(hang, limit_s=0.3)
    lanes.answer(0, (UNSURE, UNSURE))
    is_stuck = True
    start_s = time.monotonic()
    for number in (1, 2):  # the first answer of the trunk needs no branch
        if lanes.answer(number, (UNSURE, UNSURE), answer) is None:
            break
    assert time.monotonic() - start_s < 5
    assert isinstance(lanes.chain.failure, RunTimeout)
    assert lanes.answer(3, (UNSURE, UNSURE), answer) is None
    lanes.chain.close()
    assert time.monotonic() - start_s < 5
    release.set()


def test_an_error_of_a_branch_is_a_failure(start):
    is_broken = False

    def fail(stage, _number):
        if is_broken and stage == "branch1":
            raise ValueError("no such kernel")

    lanes = start(fail)
    lanes.answer(0, (UNSURE, UNSURE))
    is_broken = True
    assert lanes.answer(1, (UNSURE, UNSURE), "ordered") is None
    assert isinstance(lanes.chain.failure, LayoutselError)
    assert "no such kernel" in str(lanes.chain.failure)


@pytest.mark.parametrize("stage", ["trunk0", "trunk2"])
def test_an_error_of_the_trunk_is_its_callers(start, stage):
    is_broken = False

    def fail(name, _number):
        if is_broken and name == stage:
            raise ValueError("no such kernel")

    lanes = start(fail)
    for number in range(5):
        is_broken = number in (1, 2)
        if is_broken:
            with pytest.raises(ValueError, match="no such kernel"):
                lanes.answer(number, (UNSURE, UNSURE))
        else:
            check(lanes.answer(number, (UNSURE, UNSURE)), number, [2])
    assert lanes.chain.failure is None


@pytest.mark.parametrize("stage", ["trunk1", "branch0"])
def test_closing_in_the_middle_of_a_request(start, stage):
    begun, release, is_held = threading.Event(), threading.Event(), False

    def hold(name, _number):
        if is_held and name == stage:
            begun.set()
            release.wait(LIMIT_S)

    lanes = start(hold)
    lanes.answer(0, (UNSURE, UNSURE))
    is_held = True
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(lanes.answer, 1, (UNSURE, UNSURE), "ordered")
        assert begun.wait(LIMIT_S)
        closing = pool.submit(lanes.chain.close)
        if stage == "branch0":  # the caller does not wait for the branch
            assert call.result(LIMIT_S) is None
        release.set()
        assert call.result(LIMIT_S) is None
        closing.result(LIMIT_S)
    assert lanes.answer(2, (UNSURE, UNSURE)) is None


def close_after(lanes, delay_s):
    time.sleep(delay_s)
    lanes.chain.close()


def test_closing_at_random_times(start):
    generator = random.Random(3)
    for _ in range(60):
        lanes = start(kernels=1)
        lanes.answer(0, (UNSURE, UNSURE))
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(close_after, lanes, 2e-3 * generator.random())
            number = 1
            while (found := lanes.answer(number, (SURE, UNSURE))) is not None:
                check(found, number, [0, 2])
                number += 1
            closing.result(LIMIT_S)


def test_a_fork_waits_for_the_branches_and_the_child_goes_another_way(start):
    is_slow, begun = False, threading.Event()

    def slow(stage, _number):
        if is_slow and stage == "branch1":
            begun.set()
            time.sleep(0.1)
        if is_slow and stage == "trunk2":
            assert begun.wait(LIMIT_S)

    lanes = start(slow, kernels=1)
    lanes.answer(0, (UNSURE, UNSURE))
    is_slow = True
    check(lanes.answer(1, (UNSURE, UNSURE)), 1, [2])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(lanes.answer(2, (UNSURE, UNSURE)) is not None)
            lanes.chain.close()
        finally:
            os._exit(status)
    assert lanes.chain.counts().branches == 2
    assert_ends_well(child)
    is_slow = False
    check(lanes.answer(3, (UNSURE, UNSURE)), 3, [2])


def test_no_core_is_used_between_requests(start):
    lanes = start()
    for number in range(3):
        lanes.answer(number, (SURE, UNSURE))
    lanes.chain.counts()
    time.sleep(0.05)
    before_s = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before_s < 0.05


@pytest.mark.skipif(len(available_cores()) < 2, reason="needs two cores")
def test_lanes_are_pinned_and_the_callers_affinity_stays(start):
    first, second, *_ = available_cores()
    found = {}
    lanes = start(
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


def test_requests_of_several_threads(start):
    lanes = start(kernels=2)

    def work(start):
        for number in range(start, start + 300):
            check(lanes.answer(number, (SURE, UNSURE)), number, [0, 2])

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work, 1000 * n) for n in range(3)]:
            done.result(LIMIT_S)
