"""Running an artifact in a process that neither plans nor compiles."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
from command import layoutsel, refused, succeed


def test_given_inputs_and_written_outputs(model, artifact, tmp_path):
    value = np.random.default_rng(3).standard_normal((1, 16, 12, 12)).astype(np.float32)
    np.save(tmp_path / "x.npy", value)
    text = succeed(
        "run",
        artifact,
        "--input",
        f"x={tmp_path / 'x.npy'}",
        "--output-dir",
        tmp_path / "out",
        "--repeat",
        2,
        run=layoutsel,
    )
    assert "y: float32 1×10" in text
    assert "median" in text
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": value})
    np.testing.assert_allclose(np.load(tmp_path / "out" / "y.npy"), expected, rtol=1e-4, atol=1e-6)


def test_the_trace_has_a_row_per_unit_and_every_subgraph(artifact, tmp_path):
    path = tmp_path / "trace.json"
    succeed("run", artifact, "--repeat", 1, "--trace", path)
    document = json.loads(path.read_text())
    events = document["traceEvents"]
    rows = {
        event["args"]["name"]: event["tid"] for event in events if event["name"] == "thread_name"
    }
    ran = [event for event in events if event.get("cat") in ("subgraph", "transform")]
    assert {event["tid"] for event in ran} == set(rows.values()) - {rows["runs"]}
    plan = json.loads(succeed("explain", artifact, "--json"))
    names = {event["name"].split()[0] for event in ran}
    wanted = {
        s["id"] for s in plan["subgraphs"] if s["operators"] not in (["reshape"], ["flatten"])
    }
    assert wanted <= names
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in ran)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.zeros((1, 16, 12, 13), np.float32), "got float32 of shape (1, 16, 12, 13)"),
        (np.zeros((1, 16, 12, 12), np.float64), "got float64"),
        (np.zeros((), np.float32), "got float32 of shape ()"),
    ],
)
def test_a_wrong_input(artifact, tmp_path, value, expected):
    np.save(tmp_path / "x.npy", value)
    line = refused("run", artifact, "--input", f"x={tmp_path / 'x.npy'}")
    assert expected in line
    assert "expected float32 of shape (1, 16, 12, 12)" in line


def test_an_unknown_input(artifact, tmp_path):
    np.save(tmp_path / "z.npy", np.zeros(1, np.float32))
    assert "input 'z' is unknown" in refused("run", artifact, "--input", f"z={tmp_path / 'z.npy'}")


@pytest.mark.parametrize("text", ["x", "x=", "=x.npy"])
def test_an_unreadable_input_option(artifact, text):
    assert "expected NAME=FILE.npy" in refused("run", artifact, "--input", text)


def test_an_unreadable_input_file(artifact, tmp_path):
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY but cut")
    assert "is not an .npy file" in refused("run", artifact, "--input", f"x={tmp_path / 'x.npy'}")
    assert "cannot read" in refused("run", artifact, "--input", f"x={tmp_path / 'none.npy'}")


def test_a_truncated_artifact(artifact, tmp_path):
    path = tmp_path / "cut.so"
    path.write_bytes(artifact.read_bytes()[:-100])
    assert "is truncated" in refused("run", path, run=layoutsel)
    assert "is truncated" in refused("explain", path)


def test_what_is_no_artifact(model, tmp_path):
    assert "not a layoutsel artifact" in refused("run", model)
    assert "cannot read" in refused("run", tmp_path / "none.so")
    assert "cannot read" in refused("run", tmp_path)


def test_a_name_that_the_loader_does_not_know(model, artifact, tmp_path):
    text = "got the suffix '.bin'; expected '.so'"
    assert text in refused("compile", model, "-o", tmp_path / "model.bin")
    renamed = tmp_path / "renamed.bin"
    renamed.write_bytes(artifact.read_bytes())
    assert text in refused("run", renamed)
    assert [path.name for path in tmp_path.iterdir()] == ["renamed.bin"]
