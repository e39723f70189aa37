"""Fixtures of multi-exit networks that run."""

from __future__ import annotations

import threading
import time

import pytest
from lane_kernels import PythonLanes
from stage_gate import LIMIT_S

from layoutsel.device.entry_points import Program
from layoutsel.exits import batch_segments, runner_pool, runners


@pytest.fixture
def slow(monkeypatch):
    """Function that sets the delay of a stage: ``slow(lambda stage: time.sleep(0.1))``."""
    delays = []
    make = Program.function

    def function(self, machine, chain, **_options):
        run = make(self, machine, chain)  # not repeated: instruments see no repeated run

        def delayed(*inputs):
            for delay in delays:
                delay(chain.name)
            return run(*inputs)

        return delayed

    monkeypatch.setattr(Program, "function", function)
    # The plugin's chains call no stage of Python.
    monkeypatch.setattr(runners, "can_chain", lambda _lanes: False)
    monkeypatch.setattr(runner_pool, "can_pair", lambda _lanes: False)
    monkeypatch.setattr(batch_segments, "NativeExitSegment", batch_segments.ExitSegment)
    return delays.append


def serving() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "layoutsel-serve"}


@pytest.fixture
def start_lanes():
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
