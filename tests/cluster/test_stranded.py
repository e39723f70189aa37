"""Stranded requests: each wait ends once, by a retry or at its time limit."""

from __future__ import annotations

import time

import pytest

from layoutsel.cluster.attempt import ClusterRequest
from layoutsel.cluster.event_loop import EventLoop
from layoutsel.cluster.stranded import StrandedRequests

LONGEST_S = 0.2


@pytest.fixture
def loop():
    loop = EventLoop("test", lambda _error: None)
    yield loop
    loop.close()


@pytest.fixture
def retried():
    return []


@pytest.fixture
def given_up():
    return []


@pytest.fixture
def stranded(loop, retried, given_up):
    return StrandedRequests(loop, LONGEST_S, retry=retried.append, give_up=given_up.append)


def request(number: int = 0) -> ClusterRequest:
    return ClusterRequest(number=number, inputs={}, tensors={}, start_s=0.0)


def after_the_limit(loop: EventLoop) -> None:
    time.sleep(2 * LONGEST_S)
    loop.call(lambda: None)  # the first function after the timers are due runs before them
    loop.call(lambda: None)


def test_a_wait_ends_with_a_retry_alone(loop, stranded, retried, given_up):
    one, other = request(0), request(1)
    loop.call(lambda: (stranded.add(one), stranded.add(other)))
    assert len(stranded) == 2
    loop.call(stranded.retry_all)
    after_the_limit(loop)
    assert (retried, given_up, len(stranded)) == ([one, other], [], 0)


def test_a_wait_ends_at_its_limit_alone(loop, stranded, retried, given_up):
    one = request()
    loop.call(lambda: stranded.add(one))
    after_the_limit(loop)
    loop.call(stranded.retry_all)
    assert (retried, given_up, len(stranded)) == ([], [one], 0)


def test_a_second_wait_has_the_full_time(loop, stranded, given_up):
    one = request()
    loop.call(lambda: stranded.add(one))
    time.sleep(0.75 * LONGEST_S)
    loop.call(lambda: (stranded.retry_all(), stranded.add(one)))
    added_s = time.monotonic()
    while not given_up:
        time.sleep(0.001)
        assert time.monotonic() - added_s < 60
    assert time.monotonic() - added_s > 0.9 * LONGEST_S
    assert given_up == [one]


@pytest.mark.parametrize("way", ["retry", "limit"])
def test_a_request_that_has_ended_is_left_alone(loop, stranded, retried, given_up, way):
    one = request()
    loop.call(lambda: stranded.add(one))
    one.future.set_result({})
    if way == "retry":
        loop.call(stranded.retry_all)
    after_the_limit(loop)
    assert (retried, given_up, len(stranded)) == ([], [], 0)
