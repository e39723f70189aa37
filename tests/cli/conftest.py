"""One model, its plan and its artifact for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import layoutsel, small_model, succeed


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A small ONNX file."""
    return small_model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="session")
def plan_file(model, tmp_path_factory) -> Path:
    """Its plan."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    succeed("plan", model, "-o", path, "--cost", "roofline", "--threads", 2, run=layoutsel)
    return path


@pytest.fixture(scope="session")
def artifact(model, plan_file, tmp_path_factory) -> Path:
    """What the plan was compiled to."""
    path = tmp_path_factory.mktemp("artifact") / "small.so"
    succeed("compile", model, "-o", path, "--plan", plan_file, run=layoutsel)
    return path
