"""Ctrl-C while tuning: what was recorded stays, and the same command goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest

from layoutsel.compile.session import Session
from layoutsel.tuning import search
from layoutsel.tuning.database import Journal
from layoutsel.tuning.devices import LocalDevice
from layoutsel.tuning.tasks import gather_tasks
from tests.cli.command import COMMAND, succeed
from tests.tuning.conftest import LAYOUTS, record_lines
from tvm_passes.cpu import host_target
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


@pytest.mark.nightly
def test_a_task_that_cannot_be_tuned_stops_no_other(model, tmp_path, monkeypatch):
    session = Session.open(str(model), units=["cpu"], threads=1)
    good, other, *_ = gather_tasks([session])
    bad = replace(other, name="bad")
    context = search.meta_schedule.TuneContext

    def fail(*, task_name, **options):
        if task_name == "bad":
            raise RuntimeError("a long story\nno schedule fits")
        return context(task_name=task_name, **options)

    monkeypatch.setattr(search.meta_schedule, "TuneContext", fail)
    with Journal(tmp_path) as journal, LocalDevice(1) as device:
        results = search.tune(
            [bad, good],
            trials=1,
            target=host_target(),
            threads=1,
            device=device,
            journal=journal,
        )
    assert results[0].error == "no schedule fits"
    assert not results[0].trials
    assert (results[1].error, results[1].trials) == (None, 1)
    assert len(record_lines(tmp_path)) == 1


def test_two_processes_do_not_tune_into_one_folder(tmp_path):
    with Journal(tmp_path), pytest.raises(LayoutselError, match="another process is tuning"):
        Journal(tmp_path).__enter__()
