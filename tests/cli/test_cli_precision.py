"""--precision: of plans, compiled models, pins and comparisons; and every way in which it is asked for wrongly."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from command import layoutsel, refused, run_here, succeed

from layoutsel.cost.learned import PRETRAINED
from tvm_passes.cpu.host import has_bf16, host_target

QUICK = ("--units", "cpu", "--cost", "roofline", "--threads", 1)
BF16_POOL = ("--precision", "bf16", "--pin", "pool=cpu:NHWC:bf16")
needs_bf16 = pytest.mark.skipif(
    not has_bf16(host_target()), reason="the CPU has no AVX512_BF16: the unit declines bf16"
)


def compiled(model, path, *options):
    """What compiling printed, and the plan in the artifact."""
    text = succeed("compile", model, "-o", path, *QUICK, *options)
    return text, json.loads(succeed("explain", path, "--json"))


def decided(document):
    return {subgraph["decision"] for subgraph in document["subgraphs"]}


@pytest.fixture(scope="module")
def calib(tmp_path_factory):
    """Four samples of the model's input."""
    file = tmp_path_factory.mktemp("calib") / "data.npz"
    generator = np.random.default_rng(7)
    np.savez(file, x=generator.standard_normal((4, 16, 12, 12)).astype(np.float32))
    return file


@needs_bf16
def test_a_bf16_plan_is_made_built_verified_and_told(model, tmp_path):
    path, artifact = tmp_path / "plan.json", tmp_path / "small.so"
    text = succeed("plan", model, "-o", path, *QUICK, *BF16_POOL)
    assert "precision bf16: 1 in bf16" in text
    assert re.search(r"1 on cpu:NHWC:bf16", text)
    document = json.loads(path.read_text())
    assert document["precision"] == "bf16"
    assert document["max_rel_error"] is None
    assert any("a sensitive sub-graph" in decline["got"] for decline in document["declines"])
    text = succeed("compile", model, "--plan", path, "-o", artifact)
    (error,) = re.findall(r"verified 'logits of output 0' .* relative L2 error (\S+)", text)
    assert 1e-5 < float(error) < 3e-2
    assert "relative L2 error" in succeed("run", artifact, "--repeat", 1, run=layoutsel)
    text = succeed("explain", artifact)
    assert "cpu:NHWC:bf16" in text
    assert "verified 'y'" in text
    assert "precision bf16" in succeed("explain", path, "--model", model)


@needs_bf16
def test_split_products_are_of_f32_grade(model, tmp_path):
    options = ("--precision", "f32-grade", "--pin", "pool=cpu:NHWC:split-bf16", "--no-verify-speed")
    text, document = compiled(model, tmp_path / "small.so", *options)
    assert "cpu:NHWC:split-bf16" in decided(document)
    for error in re.findall(r"relative L2 error (\d\S+e\S+)", text):
        assert float(error) <= 2e-5


@needs_bf16
def test_non_f32_plans_are_raced_against_f32_and_each_precision(model, tmp_path):
    _, document = compiled(model, tmp_path / "small.so", "--precision", "bf16")
    assert document["precision"] == "bf16"
    assert len(document["measured"]) > 1
    assert all(point["median_us"] > 0 for point in document["measured"].values())
    assert any("f32" in name or "bf16" in name for name in document["measured"])


@needs_bf16
def test_auto_keeps_its_budget_on_given_inputs(model, calib, tmp_path):
    options = (
        "--precision",
        "auto",
        "--max-rel-error",
        1e-2,
        "--calib",
        calib,
        "--no-verify-speed",
    )
    text, document = compiled(model, tmp_path / "small.so", *options)
    assert "on 4 samples, the worst: relative L2 error" in text
    assert "trade-off" in text
    assert "relative L2 error allowed: 0.01" in text
    assert document["max_rel_error"] == 1e-2
    (chosen,) = (point for point in document["trade_off"] if point["chosen"])
    assert chosen["rel_l2_err"] <= 1e-2


@needs_bf16
def test_auto_says_where_nothing_is_exact_enough(model, tmp_path):
    options = ("--precision", "auto", "--max-rel-error", 1e-12, "--no-verify-speed")
    done = run_here("compile", model, "-o", tmp_path / "small.so", *QUICK, *options)
    assert done.returncode == 0, done.stderr
    assert "no plan's error is within 1.0e-12" in done.stderr
    assert "chosen" in done.stdout


@pytest.fixture(scope="module")
def f32_model(tmp_path_factory):
    """A folder with the package's cost model, of which it says that it has seen f32 alone."""
    folder = tmp_path_factory.mktemp("f32") / "model"
    shutil.copytree(PRETRAINED, folder)
    card = json.loads((folder / "model.json").read_text())
    for part in card["parts"].values():
        part["forms"] = [f for f in part["forms"] if "bf16" not in f and "." not in f]
    (folder / "model.json").write_text(json.dumps(card))
    return folder


@pytest.mark.nightly
@needs_bf16
def test_what_no_cost_model_knows_is_measured(model, f32_model, tmp_path):
    options = ("--units", "cpu", "--threads", 1, "--cache", tmp_path / "cache.sqlite")
    options = (*options, "--cost-model", f32_model)
    text = succeed("plan", model, "--precision", "bf16", *options, run=layoutsel)
    assert "roofline" not in text


@needs_bf16
def test_what_is_neither_known_nor_measured_is_left_out(model, f32_model, tmp_path):
    path = tmp_path / "plan.json"
    options = ("--units", "cpu", "--threads", 1, "--cache", tmp_path / "cache.sqlite")
    options = (*options, "--cost-model", f32_model)
    arguments = ("plan", model, "--precision", "bf16", *options, "--measure-budget", "0s")
    done = run_here(*arguments, "-o", path)
    assert done.returncode == 0, done.stderr
    assert "0 s did not suffice to measure all" in done.stderr
    document = json.loads(path.read_text())
    assert not any("bf16" in decision for decision in decided(document))
    assert any("nothing but the estimate" in decline["got"] for decline in document["declines"])


def test_without_the_option_all_is_f32(model, tmp_path):
    path = tmp_path / "plan.json"
    text = succeed("plan", model, "-o", path, *QUICK)
    document = json.loads(path.read_text())
    assert (document["precision"], document["trade_off"]) == ("f32", [])
    assert "precision" not in text
    assert "bf16" not in path.read_text()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--max-rel-error", "1e-3"), "expected it with 'auto' alone"),
        (("--precision", "bf16", "--max-rel-error", "1e-3"), "expected it with 'auto' alone"),
        (("--precision", "int8"), "expected one of f32, f32-grade, bf16, auto"),
        (("--precision", "auto", "--max-rel-error", "-1"), "expected a number above 0"),
        (("--precision", "auto", "--max-rel-error", "nan"), "expected a number above 0"),
        (("--pin", "pool=cpu:NHWC:bf16"), "asks for precision bf16, which precision 'f32'"),
        (("--precision", "bf16", "--pin", "pool=cpu:*:split-bf16"), "no unit offers it"),
    ],
)
def test_bad_options(model, options, expected, tmp_path):
    assert expected in refused("plan", model, *QUICK, *options)
    assert expected in refused("compile", model, "-o", tmp_path / "x.so", *QUICK, *options)


@needs_bf16
def test_a_pin_on_a_sensitive_sub_graph(model):
    line = refused(
        "plan", model, *QUICK, "--precision", "bf16", "--pin", "probabilities=cpu:NCHW:bf16"
    )
    assert "a sensitive sub-graph (nn.softmax)" in line


def test_options_that_exclude_each_other(model, plan_file, tmp_path):
    out = ("-o", tmp_path / "x.so")
    both = refused("compile", model, *out, "--plan", plan_file, "--precision", "bf16")
    assert "--plan and --precision exclude each other" in both
    unverified = refused("compile", model, *out, "--precision", "auto", "--no-verify")
    assert "leave out --no-verify" in unverified


def test_a_decision_outside_of_the_plans_precision(model, plan_file, tmp_path):
    document = json.loads(plan_file.read_text())
    document["subgraphs"][0]["decision"] = "cpu:NHWC:bf16"
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(document))
    line = refused("compile", model, "--plan", path, "-o", tmp_path / "x.so")
    assert "got precision bf16; expected one of f32" in line


def test_bad_calibration_inputs(model, tmp_path):
    file, out = tmp_path / "data.npz", ("-o", tmp_path / "x.so")
    np.savez(file, z=np.zeros((1, 16, 12, 12), np.float32))
    assert "array 'z' is no input" in refused("compile", model, *out, *QUICK, "--calib", file)
    np.savez(file, x=np.zeros((1, 16, 12, 13), np.float32))
    line = refused("compile", model, *out, *QUICK, "--calib", file)
    assert "got float32 of shape (1, 16, 12, 13)" in line
    file.write_bytes(file.read_bytes()[:50])
    assert "not a valid .npz file" in refused("compile", model, *out, *QUICK, "--calib", file)
    missing = refused("compile", model, *out, *QUICK, "--calib", tmp_path / "none.npz")
    assert "No such file" in missing


@pytest.mark.nightly
@needs_bf16
def test_bench_compares_with_f32_where_an_engine_has_no_other(model, tmp_path):
    path = tmp_path / "rows.json"
    options = ("--precision", "bf16", "--cost", "roofline", "--units", "cpu", "--rounds", 2)
    text = succeed("bench", model, "--against", "onnxruntime", *options, "--json", path)
    rows = {row["engine"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows["layoutsel"]["precision"] == "bf16"
    assert rows["onnxruntime"]["precision"] == "f32"
    assert rows["onnxruntime"]["median_ms"] > 0
    assert "precision" in text
    assert "expected it with 'auto' alone" in refused("bench", model, "--max-rel-error", 1e-3)
