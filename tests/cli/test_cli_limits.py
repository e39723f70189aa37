"""The limits of compiling, on the command line."""

from __future__ import annotations

import pytest
from command import refused, run_here, small_model, succeed


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--time-limit", "0s", "time_limit_s: got 0; expected a number above 0"),
        ("--time-limit", "soon", "'soon'"),
        ("--memory-limit", "-5", "memory_limit_mb: got -5; expected a number above 0"),
    ],
)
def test_a_limit_that_is_none_is_refused(tmp_path, option, value, message):
    model = small_model(tmp_path / "m.onnx")
    line = refused("compile", model, "-o", tmp_path / "m.so", f"{option}={value}")
    assert message in line


def test_a_plan_within_no_time_states_its_bound_and_what_it_lacks(tmp_path):
    made = tmp_path / "plan.json"
    options = ("--cost", "roofline", "--time-limit", "0.000001s", "-o", made)
    done = run_here("plan", small_model(tmp_path / "m.onnx"), *options)
    assert done.returncode == 0
    assert "no time is left to compare the plan with others" in done.stderr
    assert "lower bound" in done.stdout
    assert "not explained" in succeed("explain", made)


def test_limits_are_taken(tmp_path):
    options = (
        "--cost",
        "roofline",
        "--no-verify-speed",
        "--time-limit",
        "1m",
        "--memory-limit",
        "200",
    )
    succeed("compile", small_model(tmp_path / "m.onnx"), "-o", tmp_path / "m.so", *options)
    assert (tmp_path / "m.so").stat().st_size > 0
