"""bench, on real engines."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
from command import layoutsel, refused, small_model, succeed
from tiers import tiered

from layoutsel.benchmarking.engines import ENGINES

KEYS = {
    *("model", "engine", "precision", "threads", "median_ms", "p10_ms", "p90_ms"),
    *("runs", "rel_l2_err", "accuracy", "load_s", "peak_rss_mb"),
}
QUICK = ("--cost", "roofline", "--rounds", 2)


@pytest.mark.parametrize("others", tiered([(), ("other",)], ((),)))
def test_rows_ratios_and_json(model, others, tmp_path):
    files = [small_model(tmp_path / f"{name}.onnx", channels=32) for name in others]
    path = tmp_path / "rows.json"
    text = succeed("bench", model, *files, "--against", "onnxruntime", *QUICK, "--json", path)
    document = json.loads(path.read_text())
    assert document["schema_version"] == 1
    rows = document["rows"]
    assert [(row["model"], row["engine"]) for row in rows] == [
        (name, engine) for name in ("small", *others) for engine in ("layoutsel", "onnxruntime")
    ]
    for row in rows:
        assert set(row) == KEYS | ({"settings"} if row["engine"] != "layoutsel" else set())
        assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        assert row["rel_l2_err"] < 1e-5
        assert row["threads"] == 2
        assert row["rel_l2_err"] == max(one["rel_l2_err"] for one in row["accuracy"])
    assert "relative L2 error of onnxruntime: " in text
    assert "(the promise of f32" in text
    assert ("geometric mean over 2 models" in text) == bool(others)


def test_an_engine_that_fails_is_a_row_and_the_others_go_on(model, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "rows.json"
    options = ("--against", "onnxruntime,openvino", "--precision", "bf16", *QUICK)
    text = succeed("bench", model, *options, "--units", "nothing", "--json", path)
    rows = {row["engine"]: row for row in json.loads(path.read_text())["rows"]}
    assert "unknown unit 'nothing'" in rows["layoutsel"]["error"]
    assert rows["onnxruntime"]["median_ms"] > 0
    assert (rows["openvino"]["median_ms"] > 0, rows["openvino"]["precision"]) == (True, "bf16")
    assert "unknown unit 'nothing'" in text


@pytest.mark.nightly
def test_a_model_that_cannot_be_read_does_not_stop_the_others(model, tmp_path):
    missing = tmp_path / "none.onnx"
    done = layoutsel("bench", missing, model, "--against", "onnxruntime", *QUICK)
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert "small" in done.stdout


TUNED = {"onnxruntime-tuned": "default options", "openvino-tuned": "latency hint"}
PEERS = (pytest.param("torch-inductor", marks=pytest.mark.nightly), "mnn", "ncnn")


@pytest.mark.parametrize("engine", TUNED)
def test_a_tuned_engine_states_its_settings(model, engine, tmp_path):
    path = tmp_path / "rows.json"
    text = succeed("bench", model, "--against", engine, *QUICK, "--json", path)
    (row,) = (one for one in json.loads(path.read_text())["rows"] if one["engine"] == engine)
    assert row["median_ms"] > 0
    assert row["rel_l2_err"] < 1e-5
    assert TUNED[engine] in row["settings"]
    assert f"settings of {engine}: " in text


@pytest.mark.parametrize("engine", PEERS)
def test_a_peer_runs_or_says_what_to_install(model, engine, tmp_path):
    path = tmp_path / "rows.json"
    succeed("bench", model, "--against", engine, *QUICK, "--json", path)
    (row,) = (one for one in json.loads(path.read_text())["rows"] if one["engine"] == engine)
    if any(find_spec(module) is None for module in ENGINES[engine].requires):
        assert "pip install 'layoutsel[peers]'" in row["error"]
    else:
        assert row["rel_l2_err"] < 1e-3
        assert row["settings"]


def test_an_unknown_engine(model):
    assert "unknown engine 'glow'" in refused("bench", model, "--against", "glow")


@pytest.mark.nightly
def test_trials_of_stock_tvm_are_kept_and_those_that_lack_are_run(model, tmp_path):
    def trials(number: int) -> int:
        options = (
            "--against",
            "tvm-tuned",
            "--tuning-trials",
            number,
            "--tuning-log",
            tmp_path / "log",
        )
        text = succeed("bench", model, *options, *QUICK)
        assert "relative L2 error of tvm-tuned" in text
        (records,) = tmp_path.glob("log/*/database_tuning_record.json")
        return len(records.read_text().splitlines())

    first = trials(2)
    assert first >= 2
    more = trials(first + 2)
    assert more > first
    (records,) = tmp_path.glob("log/*/database_tuning_record.json")
    with records.open("a") as file:
        file.write('[0, [[[["GetBl')  # as of a process that was ended
    assert trials(more) == more


def test_a_tuning_log_that_is_a_file_is_refused(model):
    assert "it is not a directory" in refused("bench", model, "--tuning-log", model)
