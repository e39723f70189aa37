"""Fixtures of multi-exit networks that run."""

from __future__ import annotations

import pytest

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
