"""A tiny model, tuned once for all tests; nothing is kept in the user's cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from layoutsel.units.layouts import packed_layout
from tests.cli.command import layoutsel, succeed
from tests.once import once

LAYOUTS = ("NCHW", "NHWC", packed_layout())
TRIALS = 2


def convolution(path: Path, *, seed: int = 0, head: bool = False) -> Path:
    """Write a network of one convolution with bias and relu, and a softmax behind it if there shall be a `head`."""
    generator = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> TensorProto:
        values = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r" if head else "y"]),
    ]
    result = value("y", 1, 32, 8, 8)
    if head:
        nodes += [
            helper.make_node("Flatten", ["r"], ["f"]),
            helper.make_node("Softmax", ["f"], ["y"]),
        ]
        result = value("y", 1, 32 * 64)
    graph = helper.make_graph(
        nodes,
        path.stem,
        [value("x", 1, 16, 8, 8)],
        [result],
        [weights("w", 32, 16, 3, 3), weights("b", 32)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def record_lines(folder: Path) -> list[list[object]]:
    """The records in a folder, parsed; none where there is no file yet."""
    file = folder / "database_tuning_record.json"
    if not file.exists():
        return []
    whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """The tiny model."""
    return convolution(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def tuned(model, tmp_path_factory) -> tuple[Path, str]:
    """Folder of its tuning records, and what the command printed."""

    def tune(folder: Path) -> None:
        arguments = ["tune", model, "--trials", TRIALS, "--threads", 1, "--logs", folder / "logs"]
        (folder / "printed").write_text(succeed(*arguments, run=layoutsel))

    folder = once(tmp_path_factory, "tuned", tune)
    return folder / "logs", (folder / "printed").read_text()


@pytest.fixture
def logs(tuned, tmp_path) -> Path:
    """A copy of the records, to be changed at will."""
    return Path(shutil.copytree(tuned[0], tmp_path / "logs"))
