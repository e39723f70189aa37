"""Fixtures of multi-exit networks that run."""

from __future__ import annotations

import pytest

from layoutsel.device.entry_points import Program


@pytest.fixture
def slow(monkeypatch):
    """Function that sets the delay of a stage: ``slow(lambda stage: time.sleep(0.1))``."""
    delays = []
    make = Program.function

    def function(self, machine, chain):
        run = make(self, machine, chain)

        def delayed(*inputs):
            for delay in delays:
                delay(chain.name)
            return run(*inputs)

        return delayed

    monkeypatch.setattr(Program, "function", function)
    return delays.append
