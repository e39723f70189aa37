"""The limits of compiling, on the command line."""

from __future__ import annotations

import pytest
from command import refused, small_model, succeed


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
