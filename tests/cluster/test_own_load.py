"""Load of this machine by others, from processor times."""

from __future__ import annotations

import os
from types import SimpleNamespace

import psutil
import pytest

from layoutsel.cluster.own_load import OwnLoad


class Clock:
    """Processor times of four cores, of which this process may use two."""

    def __init__(self) -> None:
        self.cores = [dict.fromkeys(("user", "system", "idle", "iowait"), 0.0) for _ in range(4)]
        self.own_s = 0.0

    def pass_(self, own: float, others: float, seconds: float = 10.0) -> None:
        """Let time pass, with shares of the two cores."""
        for number, core in enumerate(self.cores):
            used = own + others if number in (1, 3) else 1.0
            core["user"] += seconds * used
            core["idle"] += seconds * (1 - used) / 2
            core["iowait"] += seconds * (1 - used) / 2
        self.own_s += 2 * seconds * own


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    times = lambda percpu: [  # noqa: E731
        SimpleNamespace(_asdict=lambda core=core: dict(core)) for core in clock.cores
    ]
    own = SimpleNamespace(
        cpu_times=lambda: SimpleNamespace(user=clock.own_s / 2, system=clock.own_s / 2)
    )
    monkeypatch.setattr(psutil, "cpu_times", times)
    monkeypatch.setattr(psutil, "Process", lambda: own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {1, 3})
    return clock


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (0.4, 0.0, 0.0),
        (0.4, 0.25, 0.25),
        (0.2, 0.8, 0.8),  # several others compete with this process
        (0.0, 0.3, 0.3),
        (0.0, 1.0, 0.5),  # they would share with this process
    ],
)
def test_other_work_on_the_own_cores_counts(clock, own, others, expected):
    load = OwnLoad()
    clock.pass_(own=0.1, others=0.6)
    load.state()
    clock.pass_(own, others)
    assert load.state().others_busy == pytest.approx(expected)


def test_no_time_is_no_load(clock):
    load = OwnLoad()
    assert load.state().others_busy == 0
    assert load.state().free_bytes > 0
