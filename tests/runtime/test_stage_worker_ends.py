"""Workers when the process forks or ends, when a run takes too long, and when they are closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import convolution, image

import layoutsel
from tvm_passes.onednn import available

PROGRAM = Path(__file__).with_name("stage_scenarios.py")
needs_plugin = pytest.mark.skipif(available() is not None, reason=str(available()))


@pytest.fixture(scope="module", params=["cpu", pytest.param("onednn", marks=needs_plugin)])
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("worker")
    model = layoutsel.optimize(
        convolution(), cost="roofline", verify_speed=False, units=[request.param], threads=2
    )
    np.save(folder / "x.npy", image())
    options = ["no-plugin"] if request.param == "cpu" else []
    return [model.save(folder / "model.so"), folder / "x.npy", *options]


@pytest.mark.parametrize(
    "scenario", ["fork", "exit_while_it_runs", "exit_while_threads_end", "too_late", "closed"]
)
def test_scenario(saved, scenario):
    program = [sys.executable, PROGRAM, scenario, *saved]
    ran = subprocess.run(program, check=False, timeout=120, capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr.strip(), ran.returncode) == ("ok", "", 0)
