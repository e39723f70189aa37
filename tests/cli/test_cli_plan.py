"""plan, compile and explain."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest
from command import COMMAND, layoutsel, refused, run_here, small_model, succeed


def edited(plan_file, path, change):
    document = json.loads(plan_file.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def test_the_plan_is_a_file_and_a_table(model, tmp_path):
    path = tmp_path / "plan.json"
    text = succeed("plan", model, "-o", path, "--cost", "roofline", "--pin", "first=cpu:NCHW")
    document = json.loads(path.read_text())
    assert document["subgraphs"][0]["decision"] == "cpu:NCHW"
    assert "lower bound" in text
    assert "proven best" in text
    assert re.search(r"predicted \S+ ms ± \S+ ms, of it", text)
    assert "knowing every cost exactly is expected to save at most" in text
    assert f"sub-graphs: {len(document['subgraphs'])} roofline" in text
    assert all(subgraph["id"] in text for subgraph in document["subgraphs"])


def test_score_strategy(model):
    assert "strategy score" in succeed("plan", model, "--cost", "roofline", "--strategy", "score")


def test_an_edited_plan_is_built_as_it_is(model, plan_file, tmp_path):
    def everything_on_the_cpu(document):
        for subgraph in document["subgraphs"]:
            subgraph["decision"] = "cpu:NCHW"

    plan = edited(plan_file, tmp_path / "edited.json", everything_on_the_cpu)
    path = tmp_path / "edited.so"
    succeed("compile", model, "--plan", plan, "-o", path)
    document = json.loads(succeed("explain", path, "--json"))
    assert {subgraph["decision"] for subgraph in document["subgraphs"]} == {"cpu:NCHW"}


def test_a_plan_of_another_model_is_refused(plan_file, tmp_path):
    other = small_model(tmp_path / "other.onnx", channels=8)
    line = refused("compile", other, "--plan", plan_file, "-o", tmp_path / "x.so")
    assert "the plan is of another model" in line
    assert not (tmp_path / "x.so").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["subgraphs"][-1].update(decision="cpu:NCHW7c"), "NCHW7c"),
        (lambda d: d["subgraphs"][0].update(decision="npu:NCHW"), "unit 'npu'"),
        (lambda d: d["subgraphs"].pop(), "no decision for sub-graph"),
        (lambda d: d.update(machine="another"), "another machine"),
        (lambda d: d.pop("model_hash"), "$.model_hash"),
        (lambda d: d.update(schema_version=99), "$.schema_version"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(model, plan_file, tmp_path, change, expected):
    plan = edited(plan_file, tmp_path / "edited.json", change)
    assert expected in refused("compile", model, "--plan", plan, "-o", tmp_path / "x.so")


def test_a_truncated_plan_is_refused(plan_file, tmp_path):
    plan = tmp_path / "cut.json"
    plan.write_text(plan_file.read_text()[:-20])
    assert "valid JSON" in refused("explain", plan)


def test_plan_and_pins_exclude_each_other(model, plan_file, tmp_path):
    options = ("--plan", plan_file, "--pin", "first=cpu")
    assert "exclude each other" in refused("compile", model, "-o", tmp_path / "x.so", *options)


def test_a_plan_for_an_objective_says_so_and_is_explained_by_it(model, tmp_path):
    path = tmp_path / "plan.json"
    text = succeed("plan", model, "-o", path, "--cost", "roofline", "--objective", "makespan")
    assert "devices and host at once: " in text
    document = json.loads(path.read_text())
    assert (document["objective"], set(document["values"])) == ("makespan", {"sum", "makespan"})
    losses = [o["loss"] for s in document["subgraphs"] for o in s["alternatives"]]
    assert losses
    again = json.loads(succeed("explain", path, "--model", model, "--json"))
    assert again["objective"] == "makespan"
    other = ("--model", model, "--objective", "sum", "--json")
    summed = json.loads(succeed("explain", path, *other))
    assert summed["objective"] == "sum"
    assert not any("loss" in o for s in summed["subgraphs"] for o in s["alternatives"])


def test_where_an_objective_cannot_be_chosen_it_is_refused(model, plan_file, tmp_path):
    options = ("--plan", plan_file, "--objective", "makespan")
    line = refused("compile", model, "-o", tmp_path / "x.so", *options)
    assert "a plan file states its objective" in line
    assert "--objective without --model" in refused("explain", plan_file, "--objective", "sum")


@pytest.mark.nightly
def test_compile_measures_verifies_and_remembers(model, tmp_path):
    path, cache = tmp_path / "measured.so", tmp_path / "cache.sqlite"
    options = ("--cost", "measured", "--cache", cache)
    text = succeed("compile", model, "-o", path, *options, run=layoutsel)
    assert "verified 'y' against ONNX Runtime" in text
    assert "logits" in text
    assert "costs of sub-graphs: 6 measured" in text
    assert re.search(r"measured \S+ ms, predicted \S+ ms ± \S+ ms: [a-z-]+ [+-]", text)
    connection = sqlite3.connect(cache)
    ((count,),) = connection.execute("SELECT COUNT(*) FROM measurement").fetchall()
    assert count > 10
    document = json.loads(succeed("explain", path, "--json"))
    assert {subgraph["source"] for subgraph in document["subgraphs"]} == {"measured"}
    assert document["measured"]
    text = succeed("explain", path)
    assert "MEASURED" in text
    assert "the prediction is" in text
    assert "in the plan µs" in text
    assert "µs in the plan" in succeed("explain", path, "--subgraph", "first")
    again = succeed("plan", model, *options, run=layoutsel)
    assert connection.execute("SELECT COUNT(*) FROM measurement").fetchall() == [(count,)]
    assert "measured" in again


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    """On a network with too many candidates to be done before the signal comes."""
    cache = tmp_path / "cache.sqlite"
    process = subprocess.Popen(
        [*COMMAND, "plan", "light:squeezenet", "--cost", "measured", "--cache", str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not _count(cache):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("layoutsel: measuring")]
    assert len(lines) == 1, err
    assert "are kept" in lines[0]
    assert _count(cache) > 0


def _count(cache) -> int:
    if not cache.exists():
        return 0
    try:
        return sqlite3.connect(cache).execute("SELECT COUNT(*) FROM measurement").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_explain_tells_reasons_and_gains_from_the_file_alone(plan_file):
    text = succeed("explain", plan_file, run=layoutsel)
    for expected in ("next best", "layout choice alone", "unit choice alone", "choosing jointly"):
        assert expected in text


def test_explain_one_subgraph(plan_file):
    text = succeed("explain", plan_file, "--subgraph", "first")
    assert "other candidates" in text
    document = json.loads(plan_file.read_text())
    for other in document["subgraphs"][0]["alternatives"]:
        (line,) = (line for line in text.splitlines() if line.startswith(other["decision"] + " "))
        assert f"{other['extra_us']:+,.1f} µs" in line
        for part in (other["own_us"], other["transforms_us"]):
            assert abs(part) < 0.05 or f"{part:+,.1f}" in line
        parts = ("own_us", "transforms_us", "crossings_us", "others_us")
        assert sum(other[part] for part in parts) == pytest.approx(other["extra_us"], abs=1e-4)
    assert "first" in text
    assert "no sub-graph 's99'" in refused("explain", plan_file, "--subgraph", "s99")


def test_explain_prices_an_edited_plan_again(model, plan_file, tmp_path):
    def on_the_cpu(document):
        document["subgraphs"][0]["decision"] = "cpu:NCHW"

    plan = edited(plan_file, tmp_path / "edited.json", on_the_cpu)
    done = run_here("explain", plan)
    assert done.returncode == 0
    assert "first was edited to cpu:NCHW" in done.stderr
    document = json.loads(succeed("explain", plan, "--model", model, "--json"))
    before = json.loads(plan_file.read_text())
    assert document["subgraphs"][0]["decision"] == "cpu:NCHW"
    assert document["cost_us"] > before["cost_us"]
    assert document["gap"] > 0


def test_dot_is_a_graph_with_every_subgraph(plan_file, tmp_path):
    path = tmp_path / "plan.dot"
    done = run_here("explain", plan_file, "--dot", path)
    assert done.returncode == 0
    text = path.read_text()
    document = json.loads(plan_file.read_text())
    assert text.startswith("digraph")
    assert text.count("{") == text.count("}")
    for subgraph in document["subgraphs"]:
        assert f'"{subgraph["id"]}" [label=' in text
    assert '"input.0" -> "first"' in text
    assert path.with_suffix(".svg").exists() == (shutil.which("dot") is not None)


def test_explain_refuses_what_is_no_plan(model, tmp_path):
    assert "no such file" in refused("explain", tmp_path / "none.json").lower()
    assert "UTF-8" in refused("explain", model)
