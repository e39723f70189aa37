"""Ctrl-C while tuning: what was recorded stays, and the same command goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from layoutsel.tuning.database import Journal
from tests.cli.command import COMMAND, succeed
from tests.tuning.conftest import LAYOUTS, record_lines
from tvm_passes.errors import LayoutselError

WANTED = 12
LIMIT_S = 90


@pytest.mark.nightly
def test_ctrl_c_keeps_what_was_recorded(model, tmp_path):
    logs = tmp_path / "logs"
    arguments = ["tune", model, "--threads", 1, "--logs", logs, "--trials"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments), str(WANTED)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    end = time.monotonic() + LIMIT_S
    while len(record_lines(logs)) < 2 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, err
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("layoutsel: error: interrupted; ")
    assert "Traceback" not in err
    kept = len(record_lines(logs))
    assert 2 <= kept < WANTED * len(LAYOUTS)
    assert f"{kept} new trials are kept" in last
    printed = succeed(*arguments, 2)
    assert f", {kept} recorded before" in printed
    assert len(record_lines(logs)) >= 2 * len(LAYOUTS)


def test_two_processes_do_not_tune_into_one_folder(tmp_path):
    with Journal(tmp_path), pytest.raises(LayoutselError, match="another process is tuning"):
        Journal(tmp_path).__enter__()
