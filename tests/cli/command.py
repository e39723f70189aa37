"""Runs the command line as a user does: in a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from layoutsel.cli import main
from tests.prepared import run_python

TIME_LIMIT_S = 300
COMMAND = (sys.executable, "-m", "layoutsel.cli")


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def layoutsel(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``layoutsel arguments…`` and return what it did."""
    _, *command = COMMAND
    return run_python(*command, *arguments, limit_s=TIME_LIMIT_S, environment=environment)


def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Do as :func:`layoutsel` in this process, which has imported everything already."""
    code: object = None
    saved, errors = os.dup(1), io.StringIO()
    with tempfile.TemporaryFile() as out:
        os.dup2(out.fileno(), 1)
        try:
            with contextlib.redirect_stderr(errors):
                main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        finally:
            os.dup2(saved, 1)
            os.close(saved)
        out.seek(0)
        text = out.read().decode()
    return subprocess.CompletedProcess(arguments, int(code or 0), text, errors.getvalue())


def succeed(*arguments: object, run: Run = run_here) -> str:
    """Run a command that has to work; returns its standard output."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments: object, run: Run = run_here) -> str:
    """Run a command that has to be refused in one line; returns that line."""
    done = run(*arguments)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("layoutsel: error: ")
    return lines[0]


def small_model(path: Path, *, batch: int | str = 1, channels: int = 16) -> Path:
    """Write a network of five sub-graphs: two convolutions, pooling, a matrix product and a softmax."""
    generator = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> TensorProto:
        values = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], name="first_relu"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="second"),
        helper.make_node("GlobalAveragePool", ["c1"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w2"], ["g"], name="classify", transB=1),
        helper.make_node("Softmax", ["g"], ["y"], name="probabilities"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, channels, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])],
        [
            weights("w0", 32, channels, 3, 3),
            weights("b0", 32),
            weights("w1", 48, 32, 1, 1),
            weights("w2", 10, 48),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
