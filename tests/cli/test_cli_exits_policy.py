"""``layoutsel exits observe`` and ``calibrate`` from samples to a policy."""

import json

import numpy as np
import pytest
from command import refused, succeed
from trained_exits import NAMES, network_path, samples_path

from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.policy import Policy
from tests.exits.drawn import drawn


def test_samples_become_a_certified_policy(tmp_path):
    seen, policy = tmp_path / "seen.npz", tmp_path / "policy.json"
    shown = succeed("exits", "observe", network_path(NAMES[0]), samples_path(NAMES[0]), "-o", seen)
    matrix = ExitMatrix.load(seen)
    assert f"{matrix.samples} samples with the score max_prob written" in shown
    options = ("--max-drop", "0.1", "--confidence", "0.9")
    shown = succeed("exits", "calibrate", seen, "-o", policy, *options)
    made = Policy.load(policy)
    assert "at most 10 % of samples lose, whichever sure exit answers first" in shown
    assert f"{made.certificate.losses} of {made.certificate.samples} samples lost" in shown
    printed = json.loads(succeed("exits", "calibrate", seen, "-o", policy, *options, "--json"))
    assert printed["thresholds"] == list(made.thresholds)


def test_observations_as_json(tmp_path):
    data = dict(np.load(samples_path(NAMES[0])))
    np.savez(tmp_path / "few.npz", x=data["x"][:20])
    arguments = (network_path(NAMES[0]), tmp_path / "few.npz", "--score", "margin", "--json")
    printed = json.loads(succeed("exits", "observe", *arguments, "-o", tmp_path / "seen.npz"))
    assert (printed["samples"], printed["score"]) == (20, "margin")
    assert [one["name"] for one in printed["exits"]] == ["exit1", "exit2", "final"]
    assert [one["accuracy"] for one in printed["exits"]] == [None] * 3
    assert printed["exits"][-1]["agreement"] == 1


def test_work_rule_patience_and_proof_reach_the_calibration(tmp_path):
    for name, seed in (("seen", 1), ("proof", 2)):
        drawn(seed, 3000, 2).save(tmp_path / f"{name}.npz")
    given = (
        "exits",
        "calibrate",
        tmp_path / "seen.npz",
        "-o",
        tmp_path / "p.json",
        "--max-drop",
        "0.02",
    )
    succeed(*given, "--work", "9,10,10", "--proof", tmp_path / "proof.npz")
    made = Policy.load(tmp_path / "p.json")
    assert made.thresholds[1] is None
    assert made.certificate.samples == 3000
    succeed(*given, "--rule", "accuracy", "--patience", "2")
    assert Policy.load(tmp_path / "p.json").patience == 2


WRONG = {
    "got 50 samples": ("--max-drop", "0.02"),
    "--work 1,2: expected 3 numbers": ("--work", "1,2"),
    "--work a: expected 3 numbers": ("--work", "a"),
    "work up to the exits: got 2, 1, 3": ("--work", "2,1,3"),
    "rule 'best': expected one of time, accuracy": ("--rule", "best"),
    "patience 0": ("--patience", "0"),
    "--seed -1: expected": ("--seed", "-1"),
    "confidence: got 95": ("--confidence", "95"),
    "samples that the thresholds are chosen on": ("--proof", "seen.npz"),
    "cannot read none.npz": ("--proof", "none.npz"),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, message):
    monkeypatch.chdir(tmp_path)
    drawn(3, 100, 2).save("seen.npz")
    line = refused("exits", "calibrate", "seen.npz", "-o", "p.json", *WRONG[message])
    assert message in line
    assert not (tmp_path / "p.json").exists()


def test_an_unknown_score_is_named(tmp_path):
    arguments = (network_path(NAMES[0]), samples_path(NAMES[0]), "-o", tmp_path / "s.npz")
    line = refused("exits", "observe", *arguments, "--score", "best")
    assert "--score best: expected one of max_prob, margin, entropy" in line
