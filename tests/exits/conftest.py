"""Fixtures of multi-exit networks that run."""

from __future__ import annotations

import pytest
import tvm_ffi

from layoutsel.device.entry_points import Program
from layoutsel.device.stage_caller import StageCaller


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

    def parts(self, entry):
        run, weights = native_parts(self, entry)

        def delayed(*arguments):
            for delay in delays:
                delay(entry.name)
            return run(*arguments)

        return tvm_ffi.convert(delayed), weights

    native_parts = StageCaller.parts
    monkeypatch.setattr(Program, "function", function)
    monkeypatch.setattr(StageCaller, "parts", parts)
    return delays.append
