"""Mean time of requests against a switch of threads."""

from __future__ import annotations

from layoutsel.exits.pace import SWITCH_US, Pace


def test_a_pace_is_quick_after_some_requests_and_no_longer_after_slow_ones():
    pace = Pace()
    for number in range(20):
        assert pace.is_quick == (number >= 8)
        pace.add(SWITCH_US / 2)
    pace.add(4 * SWITCH_US)  # one that waits for its core
    assert pace.is_quick
    for _ in range(20):
        pace.add(2 * SWITCH_US)
    assert not pace.is_quick
    for _ in range(40):
        pace.add(SWITCH_US / 2)
    assert pace.is_quick
