"""A race times in turns, and leaves out only what cannot win."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from layoutsel.runtime.race import WARM_UP_RUNS, race


def sleeper(seconds, counts, name):
    def call():
        counts[name] += 1
        time.sleep(seconds)

    return call


def test_the_hopeless_leave_and_keep_what_was_measured():
    counts = Counter()
    delays = {"fast": 0.001, "same": 0.001, "slow": 0.02}
    calls = {name: sleeper(delay, counts, name) for name, delay in delays.items()}
    measured = race(calls, rounds=6, turn_s=0.0, drop_after=3)
    assert measured["slow"].runs == 3
    assert measured["fast"].runs == 6 or measured["same"].runs == 6
    assert measured["slow"].median_us > 10 * measured["fast"].median_us
    assert counts["slow"] == 2 + 3 * (1 + WARM_UP_RUNS)


@pytest.mark.parametrize("drop_after", [None, 6])
def test_everyone_stays_until_then(drop_after):
    calls = {name: sleeper(delay, Counter(), name) for name, delay in (("a", 0.0), ("b", 0.01))}
    measured = race(calls, rounds=6, turn_s=0.0, drop_after=drop_after)
    assert [result.runs for result in measured.values()] == [6, 6]
