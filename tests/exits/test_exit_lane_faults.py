"""Two lanes of the plugin when a lane hangs or fails, when they are closed, and when the process is forked."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from exit_models import assert_ends_well
from lane_kernels import check
from stage_gate import LIMIT_S

from layoutsel.device.threads import shares_openmp
from layoutsel.errors import LayoutselError, RunTimeout

pytestmark = pytest.mark.skipif(not shares_openmp(), reason="the runner is part of the plugin")
SURE, UNSURE = 0.0, 1.0


@pytest.mark.parametrize("answer", ["first", "ordered"])
def test_a_branch_that_hangs_does_not_hang_its_caller(start_lanes, answer):
    begun, release, is_stuck = threading.Event(), threading.Event(), False

    def hang(stage, _number):
        if is_stuck and stage == "branch0":
            begun.set()
            release.wait(LIMIT_S)
        if is_stuck and stage == "trunk2":
            assert begun.wait(LIMIT_S)

    lanes = start_lanes(hang, limit_s=0.3)
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


class Sequence:
    """Another way to answer requests, which counts them."""

    def __init__(self):
        self.count = 0

    def answer(self, _rule, _inputs):
        self.count += 1
        return self


class Held:
    """A branch that is held from its start on, while asked for."""

    def __init__(self):
        self.begun, self.release, self.is_asked = threading.Event(), threading.Event(), False

    def __call__(self, stage, _number):
        if self.is_asked and stage == "branch0":
            self.begun.set()
            self.release.wait(LIMIT_S)
        if self.is_asked and stage == "trunk2":
            assert self.begun.wait(LIMIT_S)


@pytest.mark.parametrize("answer", ["first", "ordered"])
def test_requests_go_another_way_while_the_branches_are_late(start_lanes, answer):
    held, other = Held(), Sequence()
    lanes = start_lanes(held, sequence=other)
    check(lanes.answer(0, (UNSURE, UNSURE)), 0, [2])
    assert other.count == 1  # it was prepared
    lanes.chain.counts()
    held.is_asked = True
    check(lanes.answer(1, (UNSURE, UNSURE)), 1, [2])
    for number in range(2, 100):
        assert lanes.answer(number, (SURE, UNSURE), answer) is other
        assert other.count == number
    held.is_asked = False
    held.release.set()
    assert lanes.chain.counts() is None
    check(lanes.answer(100, (UNSURE, UNSURE), answer), 100, [2])
    assert lanes.chain.counts() is not None
    assert other.count == 99


def test_branches_that_stay_late_are_a_failure(start_lanes):
    held, other = Held(), Sequence()
    lanes = start_lanes(held, sequence=other, limit_s=0.3)
    lanes.answer(0, (UNSURE, UNSURE))
    lanes.chain.counts()
    held.is_asked = True
    check(lanes.answer(1, (UNSURE, UNSURE)), 1, [2])
    end_s = time.monotonic() + 5
    while lanes.answer(2, (UNSURE, UNSURE)) is other:
        assert time.monotonic() < end_s
    assert isinstance(lanes.chain.failure, RunTimeout)
    held.release.set()


def test_an_error_of_a_branch_is_a_failure(start_lanes):
    is_broken = False

    def fail(stage, _number):
        if is_broken and stage == "branch1":
            raise ValueError("no such kernel")

    lanes = start_lanes(fail)
    lanes.answer(0, (UNSURE, UNSURE))
    is_broken = True
    assert lanes.answer(1, (UNSURE, UNSURE), "ordered") is None
    assert isinstance(lanes.chain.failure, LayoutselError)
    assert "no such kernel" in str(lanes.chain.failure)


@pytest.mark.parametrize("stage", ["trunk0", "trunk2"])
def test_an_error_of_the_trunk_is_its_callers(start_lanes, stage):
    is_broken = False

    def fail(name, _number):
        if is_broken and name == stage:
            raise ValueError("no such kernel")

    lanes = start_lanes(fail)
    for number in range(5):
        is_broken = number in (1, 2)
        if is_broken:
            with pytest.raises(ValueError, match="no such kernel"):
                lanes.answer(number, (UNSURE, UNSURE))
        else:
            check(lanes.answer(number, (UNSURE, UNSURE)), number, [2])
    assert lanes.chain.failure is None


@pytest.mark.parametrize("stage", ["trunk1", "branch0"])
def test_closing_in_the_middle_of_a_request(start_lanes, stage):
    begun, release, is_held = threading.Event(), threading.Event(), False

    def hold(name, _number):
        if is_held and name == stage:
            begun.set()
            release.wait(LIMIT_S)

    lanes = start_lanes(hold)
    lanes.answer(0, (UNSURE, UNSURE))
    is_held = True
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(lanes.answer, 1, (UNSURE, UNSURE), "ordered")
        assert begun.wait(LIMIT_S)
        closing = pool.submit(lanes.chain.close)
        if stage == "branch0":  # the caller does not wait for the branch
            assert call.result(LIMIT_S) is None
        else:  # the branches are not held: their thread ends
            closing.result(LIMIT_S)
        release.set()
        assert call.result(LIMIT_S) is None
        closing.result(LIMIT_S)
    assert lanes.answer(2, (UNSURE, UNSURE)) is None


def test_closing_while_a_request_waits_for_the_branches_of_the_last_one(start_lanes):
    held = Held()
    lanes = start_lanes(held)
    lanes.answer(0, (UNSURE, UNSURE))
    lanes.chain.counts()
    held.is_asked = True
    check(lanes.answer(1, (UNSURE, UNSURE)), 1, [2])
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(lanes.answer, 2, (UNSURE, UNSURE))
        time.sleep(0.1)
        assert not call.done()
        closing = pool.submit(lanes.chain.close)
        assert call.result(LIMIT_S / 2) is None
        held.release.set()
        closing.result(LIMIT_S)


def close_after(lanes, delay_s):
    time.sleep(delay_s)
    lanes.chain.close()


def test_closing_at_random_times(start_lanes):
    generator = random.Random(3)
    for _ in range(60):
        lanes = start_lanes(kernels=1)
        lanes.answer(0, (UNSURE, UNSURE))
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(close_after, lanes, 2e-3 * generator.random())
            number = 1
            while (found := lanes.answer(number, (SURE, UNSURE))) is not None:
                check(found, number, [0, 2])
                number += 1
            closing.result(LIMIT_S)


def test_a_fork_waits_for_the_branches_and_the_child_goes_another_way(start_lanes):
    is_slow, begun = False, threading.Event()

    def slow(stage, _number):
        if is_slow and stage == "branch1":
            begun.set()
            time.sleep(0.1)
        if is_slow and stage == "trunk2":
            assert begun.wait(LIMIT_S)

    lanes = start_lanes(slow, kernels=1)
    lanes.answer(0, (UNSURE, UNSURE))
    lanes.chain.counts()  # its branches have ended
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
