"""Lies here so that pytest puts this folder, with its shared `models`, on the import path."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from layoutsel.cluster.engine_times import EngineProfile
from layoutsel.cluster.engine_times import kept_name as engine_name
from layoutsel.cost import adapt
from layoutsel.cost.corrections import Adaptation
from layoutsel.cost.learned import LearnedModel
from layoutsel.cost.peaks import MachinePeaks, kept_name
from layoutsel.cost.state import MachineState, state_name
from layoutsel.device.machine import this_machine
from layoutsel.documents import save

FUTURE = time.time() + 86400
"""Time of a file that stays new while the tests run."""

# Processes that share the tests are told the width of a terminal, and commands would go by it.
os.environ.pop("COLUMNS", None)

# Tests that import ONNX Runtime themselves leave nothing in the user's cache and the temporary folder either.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the commands that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests, which stay to the end, without collections of garbage, and keep them out of all later ones.

    Each compilation collects garbage, and visiting all tests and imported modules would take longer than the rest of
    a small one.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own: nothing is taken from the user's, or left in it.

    It has the machine's speed, which would be measured beside other tests, and announced as that of a busy machine; its
    present state, which compilations would probe once a minute; a calibration that corrects nothing, which the first
    compilation would make otherwise; and engines that take no time by themselves.
    """
    folder = tmp_path_factory.mktemp("cache")
    home = folder / "layoutsel"
    home.mkdir()
    for threads in range(1, 1 + (os.cpu_count() or 1)):
        peaks = MachinePeaks(
            threads=threads,
            gflops=75.0 * threads,
            cache_gbps=60.0 * threads,
            memory_gbps=10.0 + 2 * threads,
            cache_bytes=threads << 19,
        )
        save(peaks, home / f"{kept_name(this_machine(), threads)}.json")
        state = home / f"{state_name(this_machine(), threads)}.json"
        save(MachineState(compute=1.0, memory=1.0), state)
        os.utime(state, times=(FUTURE, FUTURE))
        file = adapt.adaptation_path(this_machine().fingerprint, threads, home)
        adapt.save(Adaptation(), LearnedModel.load().version, file)
    for engine in ("local", "emulated"):
        save(EngineProfile(), home / f"{engine_name(engine)}.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder
