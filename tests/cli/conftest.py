"""One model, its plan and its artifact for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import layoutsel, small_model, succeed

from tests.once import once


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A small ONNX file."""
    return small_model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="session")
def plan_file(model, tmp_path_factory) -> Path:
    """Its plan."""

    def plan(folder: Path) -> None:
        given = ("plan", model, "--cost", "roofline", "--threads", 2)
        succeed(*given, "-o", folder / "plan.json", run=layoutsel)

    return once(tmp_path_factory, "plan", plan) / "plan.json"


@pytest.fixture(scope="session")
def artifact(model, plan_file, tmp_path_factory) -> Path:
    """What the plan was compiled to."""

    def compile_it(folder: Path) -> None:
        given = ("compile", model, "--plan", plan_file)
        succeed(*given, "-o", folder / "small.so", run=layoutsel)

    return once(tmp_path_factory, "artifact", compile_it) / "small.so"
