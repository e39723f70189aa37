"""Files whose names are no text, or that hold what shells, compilers and linkers read as something else."""

from __future__ import annotations

import os
import shutil

import pytest
from command import succeed

QUICK = ("--cost", "roofline", "--threads", 1, "--units", "cpu")


@pytest.mark.parametrize(
    "name", [b"not utf-8 \xff\xfe\xe9", "a b'c\"d\ne;f&g|h* $(x) модель".encode()]
)
def test_every_file_that_is_written(tmp_path, model, name):
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    source = folder / os.fsdecode(name + b".onnx")
    shutil.copy(model, source)
    plan, graph, compiled, trace = (
        folder / os.fsdecode(name + suffix) for suffix in (b".json", b".dot", b".so", b".trace")
    )
    succeed("inspect", source, "--threads", 1)
    succeed("plan", source, "-o", plan, *QUICK)
    succeed("explain", plan, "--dot", graph)
    succeed("compile", source, "-o", compiled, "--plan", plan, "--threads", 1)
    succeed("run", compiled, "--repeat", 1, "--trace", trace, "--output-dir", folder / "out")
    assert graph.read_text(encoding="utf-8").startswith("digraph")
    left = {file.suffix for file in folder.iterdir()} - {".svg"}
    assert left == {".onnx", ".json", ".dot", ".so", ".trace", ""}
