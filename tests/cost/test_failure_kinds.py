"""Failures of the machine are no verdict on a candidate: only what happens again is kept."""

import logging
import sqlite3

import pytest

from layoutsel.core.workload import INTERRUPTED, Cost, Infeasible, Workload
from layoutsel.cost.measured import MeasuredCost, Request, run_in
from layoutsel.cost.store import Store
from layoutsel.device.outcome import Failure, FailureKind
from layoutsel.device.worker import Worker
from tests.cost.test_measured import Counting, Guess
from tests.cost.test_store import CONTEXT, NHWC

KEPT = {
    "declined": FailureKind.DECLINED,
    "raise": FailureKind.BUILD,
    "garbage": FailureKind.BUILD,
    "abort": FailureKind.CRASH,
    "exit": FailureKind.CRASH,
    ("signal", "SIGSEGV"): FailureKind.CRASH,
    ("signal", "SIGILL"): FailureKind.CRASH,
    ("signal", "SIGFPE"): FailureKind.CRASH,
}
NOT_KEPT = {
    "hang": FailureKind.TIMEOUT,
    "limit": FailureKind.TIMEOUT,
    ("signal", "SIGKILL"): FailureKind.KILLED,
    ("signal", "SIGTERM"): FailureKind.KILLED,
    ("signal", "SIGXCPU"): FailureKind.KILLED,
    ("signal", "SIGBUS"): FailureKind.ENVIRONMENT,
    "bad_alloc": FailureKind.ENVIRONMENT,
    "memory": FailureKind.ENVIRONMENT,
    "disk": FailureKind.ENVIRONMENT,
    "disk below": FailureKind.ENVIRONMENT,
    "linker": FailureKind.ENVIRONMENT,
    "missing": FailureKind.ENVIRONMENT,
    "lost": FailureKind.ENVIRONMENT,
}
WORKLOAD = Workload(key="a", operator="nn.conv2d", flops=1, weight_bytes=1, activation_bytes=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.sqlite"


def request(payload=None):
    return Request(key="a", decision=NHWC, payload=payload, label="s7 (nn.conv2d)")


@pytest.mark.parametrize("action", [*KEPT, *NOT_KEPT], ids=str)
def test_only_what_happens_again_is_kept(path, caplog, action):
    limit_s = 0.3 if action == "hang" else 20
    with (
        Store(CONTEXT, path) as store,
        Worker("tests.cost.fake_workers:behave", time_limit_s=limit_s) as worker,
    ):
        model = MeasuredCost(store, Guess())
        outcome = model.measure_all([request(action)], run_in(worker))["a", NHWC]
        assert outcome.kind is {**KEPT, **NOT_KEPT}[action]
        rest = Counting()
        assert model.measure_all([request()], rest)["a", NHWC] == outcome
        assert rest.seen == []
        last_resort = Cost.timed(111, 0, INTERRUPTED)
        known = Infeasible(reason=outcome.reason) if action in KEPT else last_resort
        assert model.subgraph(WORKLOAD, NHWC) == known
    is_named = "s7 (nn.conv2d) was not measured" in caplog.text
    assert is_named == (action in NOT_KEPT)
    with Store(CONTEXT, path) as store:
        assert store.get("a", NHWC) == (outcome if action in KEPT else None)
        rest = Counting()
        MeasuredCost(store, Guess()).measure_all([request()], rest)
        assert rest.seen == ([] if action in KEPT else ["a"])


def test_a_session_shares_them_among_its_models(path):
    disturbed = {}
    failure = Failure(kind=FailureKind.TIMEOUT, reason="ran longer than 9 s")
    for expected in (["a"], []):
        with Store(CONTEXT, path) as store:
            asked = []
            model = MeasuredCost(store, Guess(), disturbed)
            model.measure_all(
                [request()], lambda one, asked=asked: asked.append(one.key) or failure
            )
            assert asked == expected
            assert model.subgraph(WORKLOAD, NHWC).source == INTERRUPTED


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("ran longer than 60 s", FailureKind.TIMEOUT),
        ("the process was killed by SIGKILL", FailureKind.KILLED),
        ("the process was killed by SIGTERM; it last wrote: x", FailureKind.KILLED),
        ("OSError: [Errno 28] No space left on device (at cc.py:1)", FailureKind.ENVIRONMENT),
        ("the process was killed by SIGSEGV; it last wrote: x", FailureKind.CRASH),
        ("ValueError: no such kernel", FailureKind.BUILD),
    ],
)
def test_a_store_of_an_older_version(path, caplog, reason, kind):
    with Store(CONTEXT, path) as store:
        store.put("a", NHWC, Failure(kind=FailureKind.BUILD, reason=""))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE measurement SET failure=?", (reason,))
    connection.close()
    with caplog.at_level(logging.WARNING), Store(CONTEXT, path) as store:
        old = Failure(kind=kind, reason=reason)
        assert store.get("a", NHWC) == (old if old.is_reproducible else None)
        assert store.forget_failures() == 1
    assert not caplog.records


@pytest.mark.parametrize("kind", FailureKind)
def test_the_text_is_read_back(kind):
    failure = Failure(kind=kind, reason="ran longer than: 7 s")
    assert Failure.parse(failure.text) == failure
