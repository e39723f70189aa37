"""Lies here so that pytest puts this folder, with its shared `models`, on the import path."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from layoutsel.cost import adapt
from layoutsel.cost.corrections import Adaptation
from layoutsel.cost.learned import LearnedModel
from layoutsel.cost.peaks import MachinePeaks, kept_name
from layoutsel.device.machine import this_machine
from layoutsel.documents import save

# Processes that share the tests are told the width of a terminal, and commands would go by it.
os.environ.pop("COLUMNS", None)

# Tests that import ONNX Runtime themselves leave nothing in the user's cache and the temporary folder either.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the commands that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own: nothing is taken from the user's, or left in it.

    It has the machine's speed, which would be measured beside other tests, and announced as that of a busy machine; and
    a calibration that corrects nothing, which the first compilation would make otherwise.
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
        file = adapt.adaptation_path(this_machine().fingerprint, threads, home)
        adapt.save(Adaptation(), LearnedModel.load().version, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder
