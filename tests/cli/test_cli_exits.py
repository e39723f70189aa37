"""``layoutsel exits inspect``, run as a user does."""

from __future__ import annotations

import json

import onnx
import pytest
from command import layoutsel, refused, succeed
from exit_networks import NETWORKS


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    file = tmp_path_factory.mktemp("exits") / "cascade.onnx"
    onnx.save(NETWORKS["cascade"](), file)
    return file


def test_guess_is_shown_and_written(cascade, tmp_path):
    written = tmp_path / "spec.json"
    text = succeed("exits", "inspect", cascade, "-o", written, run=layoutsel)
    assert "no specification" in text
    assert all(name in text for name in ("exit1", "exit2", "final", "branch1", "trunk2", "logits"))
    assert "3 exits of 10 classes, score max_prob" in text
    text = succeed("exits", "inspect", cascade, "--spec", written)
    assert "no specification" not in text
    document = json.loads(written.read_text())
    document["exits"] = [document["exits"][0], document["exits"][2]]
    written.write_text(json.dumps(document))
    text = succeed("exits", "inspect", cascade, "--spec", written)
    assert "outputs of no exit, not computed: e2" in text


def test_json(cascade):
    report = json.loads(succeed("exits", "inspect", cascade, "--json"))
    assert report["needs"] == [[], ["exit1"]]
    assert [stage["name"] for stage in report["stages"]][::2] == ["trunk0", "trunk1", "trunk2"]
    assert report["flops"] == sorted(report["flops"])
    branches = [s["flops"] for s in report["stages"] if s["name"].startswith("branch")]
    total = sum(stage["flops"] for stage in report["stages"])
    assert report["flops"][-1] == total - sum(branches)
    assert report["is_guessed"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_hash": "0" * 64}, "the specification of exits is of another model"),
        ({"format": "layoutsel.exits/9"}, "at $.format"),
        ({"exits": []}, "expected two or more"),
    ],
)
def test_bad_specifications_are_one_line(cascade, tmp_path, change, message):
    file = tmp_path / "spec.json"
    document = json.loads(succeed("exits", "inspect", cascade, "--json"))["spec"]
    file.write_text(json.dumps({**document, **change}))
    assert message in refused("exits", "inspect", cascade, "--spec", file)


def test_network_with_one_output(model):
    assert "got one output" in refused("exits", "inspect", model)
