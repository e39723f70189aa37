"""Processes that are forked once a model is loaded: they get its results, or one clear error, and end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import convolution, image

import layoutsel
from tvm_passes.onednn import available

SCENARIOS = Path(__file__).with_name("fork_scenarios.py")


@pytest.mark.parametrize(
    ("unit", "options"),
    [
        pytest.param(
            "onednn",
            (),
            marks=pytest.mark.skipif(available() is not None, reason=str(available())),
        ),
        ("cpu", ("no-plugin",)),
    ],
)
def test_children_compute_and_end(tmp_path, unit, options):
    model = layoutsel.optimize(
        convolution(), cost="roofline", verify_speed=False, units=[unit], threads=2
    )
    np.save(tmp_path / "x.npy", image())
    path = model.save(tmp_path / "model.so")
    program = [sys.executable, SCENARIOS, path, tmp_path / "x.npy", *options]
    ran = subprocess.run(program, check=True, timeout=180, stdout=subprocess.PIPE)
    found = json.loads(ran.stdout)
    unending = found.pop("while a call does not end")
    assert unending.startswith(
        "ForkedError: this process was forked while another thread ran the model"
    )
    compiling = found.pop("compiles, while a model is compiled")
    assert compiling.startswith(
        "ForkedError: this process was forked while another thread compiled a model"
    )
    assert "\n" not in unending + compiling
    assert found == dict.fromkeys(found, "ok")
    assert len(found) == 13
