"""profile, train, evaluate, calibrate, and planning by the learned cost model."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from command import layoutsel, refused, succeed
from learning import boundaries, samples

from layoutsel.cost.archive import read_archive, write_archive
from layoutsel.cost.learned import LearnedModel
from layoutsel.cost.samples import Dataset


def rows(cache):
    connection = sqlite3.connect(cache)
    ((count,),) = connection.execute("SELECT COUNT(*) FROM measurement").fetchall()
    connection.close()
    return count


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    file = tmp_path_factory.mktemp("log") / "log.jsonl.xz"
    write_archive(Dataset(samples=samples(20), boundaries=boundaries()), file)
    return file


def test_a_cold_plan_measures_nothing(model, tmp_path):
    cache, plan = tmp_path / "cache.sqlite", tmp_path / "plan.json"
    succeed("plan", model, "--cache", cache, "-o", plan)
    assert rows(cache) == 0
    document = json.loads(plan.read_text())
    assert {entry["source"] for entry in document["subgraphs"]} == {"learned"}
    assert all(entry["spread_us"] > 0 for entry in document["subgraphs"])
    assert document["uncertainty"]["bound_us"] < document["bound_us"]


def test_hybrid_measures_what_could_change_the_plan(model, tmp_path):
    cache, plan = tmp_path / "cache.sqlite", tmp_path / "plan.json"
    succeed(
        *("plan", model, "--cost", "hybrid", "--measure-budget", "5s"),
        *("--cache", cache, "-o", plan),
    )
    candidates = sum(
        1 + len(entry["alternatives"]) for entry in json.loads(plan.read_text())["subgraphs"]
    )
    assert 0 < rows(cache) <= candidates


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "light:squeezenet", "--cost", "guess"), "expected one of auto, learned, hybrid"),
        (("plan", "light:squeezenet", "--measure-budget", "soon"), "expected seconds or minutes"),
        (("plan", "light:squeezenet", "--cost-model", "/nowhere"), "/nowhere"),
        (("profile",), "nothing to profile"),
        (("evaluate", "/nowhere"), "cannot read /nowhere"),
        (("evaluate", __file__), "not a log"),
        (("train", __file__), "not a log"),
        (("calibrate", "--limit", "soon"), "expected seconds or minutes"),
    ],
)
def test_bad_input_is_one_line(arguments, said):
    assert said in refused(*arguments)


def test_train_does_not_overwrite_a_file(log, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    assert "not a directory" in refused("train", log, "-o", taken)
    assert taken.read_text() == "mine"


def test_a_trained_model_prices_plans(log, model, tmp_path):
    text = succeed("train", log, "-o", tmp_path / "made")
    made = LearnedModel.load(tmp_path / "made")
    assert made.version in text
    plan = tmp_path / "plan.json"
    succeed("plan", model, "--cost-model", tmp_path / "made", "--units", "cpu", "-o", plan)
    assert {e["source"] for e in json.loads(plan.read_text())["subgraphs"]} == {"learned"}


def test_evaluate_without_models_says_so(log):
    assert "nothing to evaluate" in refused("evaluate", log)


@pytest.mark.nightly
def test_a_profile_is_a_data_set(tmp_path):
    cache, saved = tmp_path / "cache.sqlite", tmp_path / "saved.jsonl.xz"
    done = layoutsel("profile", "--sweep", 2, "--seed", 3, "--cache", cache, "--save", saved)
    assert done.returncode == 0, done.stderr
    dataset, skipped = read_archive(saved)
    assert not skipped
    assert len(dataset.samples) == rows(cache) > 0
    assert dataset.boundaries
    again = layoutsel("profile", "--sweep", 2, "--seed", 3, "--cache", cache)
    assert "0 new measurements" in again.stdout


@pytest.mark.nightly
def test_calibrating_keeps_a_correction(tmp_path):
    found = layoutsel("calibrate", "--most", 6, "--json", XDG_CACHE_HOME=str(tmp_path))
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert report["measurements"] <= 6
    assert report["seconds"] < 60
    kept = json.loads(Path(report["file"]).read_text())
    assert set(kept["adaptation"]["traits"]["units"]) <= {"cpu", "onednn", "amx"}
    assert len(kept["adaptation"]["errors"]) == report["measurements"]
    assert kept["model"] == LearnedModel.load().version
