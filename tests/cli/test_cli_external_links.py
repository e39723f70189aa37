"""External data that links lead to: one option, on every command that reads a model."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from command import refused, small_model, succeed

from layoutsel.cli.app import COMMANDS

_READ_NO_MODEL = {"run", "runtime", "doctor", "train", "evaluate", "calibrate"}


@pytest.fixture(scope="module")
def linked(tmp_path_factory) -> Path:
    """A model whose data is a link to a file elsewhere."""
    import onnx

    folder = tmp_path_factory.mktemp("linked")
    model = onnx.load(small_model(folder / "whole.onnx"))
    (folder / "model").mkdir()
    path = folder / "model" / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.weights", size_threshold=0)
    (folder / "model" / "m.weights").rename(folder / "elsewhere")
    (folder / "model" / "m.weights").symlink_to(folder / "elsewhere")
    return path


def test_every_command_that_reads_a_model_has_the_option():
    for name, command in COMMANDS.items():
        parameters = inspect.signature(command).parameters
        assert ("allow_external_links" in parameters) == (name not in _READ_NO_MODEL), name


@pytest.mark.parametrize("command", ["inspect", "plan", "profile", "bench", "tune"])
def test_refused_without_it(linked, command, tmp_path):
    extra = ("--logs", tmp_path) if command == "tune" else ()
    line = refused(command, linked, *extra)
    assert "--allow-external-links" in line
    assert "elsewhere" not in line


def test_followed_with_it(linked, tmp_path):
    text = succeed("inspect", linked, "--allow-external-links", "--threads", 1)
    assert "first" in text
    compiled = tmp_path / "m.so"
    options = ("--cost", "roofline", "--no-verify-speed", "--threads", 1, "--units", "cpu")
    succeed("compile", linked, "-o", compiled, *options, "--allow-external-links")
    assert compiled.exists()
