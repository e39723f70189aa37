"""``layoutsel exits plan``, ``explain``, ``compile``, ``run`` and ``bench``, run as a user does."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from command import layoutsel, refused, succeed
from trained_exits import NAMES, network_path, samples_path

from layoutsel.exits import ExitMatrix, ExitPlan, Policy, load, observe, read
from layoutsel.exits.load_table import LoadTable

NAME = NAMES[0]
NETWORK, SAMPLES = network_path(NAME), samples_path(NAME)
QUICK = ("--cost", "roofline", "--units", "cpu", "--no-measure")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Observations, policy, exit plan, artifact, and what the commands printed, by name."""
    folder = tmp_path_factory.mktemp("exits")
    found = {name: folder / name for name in ("seen.npz", "p.json", "exits.json", "net.so")}
    observe(read(NETWORK), SAMPLES).save(found["seen.npz"])
    # No certificate is needed here; half of the samples are sure at the first exit.
    scores = ExitMatrix.load(found["seen.npz"]).scores
    thresholds = (*(float(one) for one in np.median(scores[:, :-1], axis=0)), None)
    Policy(score="max_prob", thresholds=thresholds).save(found["p.json"])
    given = ("--policy", found["p.json"], "--seen", found["seen.npz"], "-o", found["exits.json"])
    found["planned"] = succeed("exits", "plan", NETWORK, *given, *QUICK, run=layoutsel)
    given = (NETWORK, found["exits.json"], "-o", found["net.so"], "--race", "1s")
    found["compiled"] = succeed("exits", "compile", *given, run=layoutsel)
    return found


class TestPlan:
    def test_the_table_has_the_arrangement_its_latencies_and_baselines(self, made):
        plan = ExitPlan.load(made["exits.json"])
        text = " ".join(made["planned"].split())
        samples = len(ExitMatrix.load(made["seen.npz"]).scores)
        assert f"mean {plan.value_us / 1e3:.3f} ms over {samples} samples" in text
        assert "a gap of 0.00%" in text
        figures = (plan.latencies.mean_us, plan.latencies.p50_us, plan.latencies.p95_us)
        assert f"this plan {' '.join(f'{us / 1e3:.3f}' for us in figures)}" in text
        for baseline in plan.baselines:
            assert baseline.name in text
        assert all(exit_ in text for exit_ in plan.exits)

    def test_pins_objective_and_answer_are_kept(self, made, tmp_path):
        printed = succeed(
            *("exits", "plan", NETWORK, "--policy", made["p.json"], "--seen", made["seen.npz"]),
            *("--pin", "exit1=off", "--objective", "p95", "--answer", "ordered", "--threads", "1"),
            *(*QUICK, "--json"),
        )
        plan = ExitPlan.read(json.loads(printed))
        assert plan.arrangement.branches[0] is None
        assert (plan.objective, plan.answer) == ("p95", "ordered")
        assert [kind.threads for kind in plan.costs.workers] == [1]
        assert plan.plans["1"].threads == 1

    def test_without_observations_no_exit_is_worth_its_time(self, made):
        text = succeed("exits", "plan", NETWORK, "--policy", made["p.json"], *QUICK)
        assert "exit1 is off: no samples were observed" in text


class TestExplain:
    def test_of_plan_and_artifact(self, made, tmp_path):
        text = succeed("exits", "explain", made["exits.json"], "--svg", tmp_path / "e.svg")
        assert "other choices, the rest at its best" in text
        titles = [one.text for one in ET.parse(tmp_path / "e.svg").iter() if one.text]
        assert any("answers at" in title for title in titles)
        text = succeed("exits", "explain", made["net.so"])
        assert "measured in turns on this machine (mean): planned" in text

    def test_one_stage(self, made):
        text = succeed("exits", "explain", made["exits.json"], "--forced", "exit2")
        choices = [line.split()[0] for line in text.splitlines()[2:] if line.strip()]
        assert choices
        assert set(choices) == {"exit2"}
        line = refused("exits", "explain", made["exits.json"], "--forced", "exit9")
        assert "--forced exit9: the plan has no other choice for it; expected one of trunk" in line


class TestCompile:
    def test_the_race_is_told_and_kept(self, made):
        with load(made["net.so"]) as model:
            race = ExitPlan.read(model.compiled.header["exits"]).race
        assert race.kept in race.times_us
        for name, us in race.times_us.items():
            assert f"{name} {us / 1e3:.3f} ms" in made["compiled"]
        assert f"kept: {race.kept}" in made["compiled"]
        assert "9 results verified against ONNX Runtime" in made["compiled"]
        assert f"written to {made['net.so']}" in made["compiled"]

    def test_a_plan_that_cannot_be_built_leaves_no_file(self, made, tmp_path):
        output = tmp_path / "net.so"
        for plan, change, message in (
            ("foreign", {"model_hash": "0" * 64}, "the exit plan is of another model"),
            ("bare", {"plans": {}}, "holds no plan of the whole network"),
            ("odd", {"answer": "best"}, "at $.answer: got 'best'; expected one of first, ordered"),
        ):
            file = tmp_path / f"{plan}.json"
            file.write_text(json.dumps({**json.loads(made["exits.json"].read_text()), **change}))
            assert message in refused("exits", "compile", NETWORK, file, "-o", output)
            assert not output.exists()


class TestBatches:
    def test_batches_that_pay_are_told_and_kept(self, made, tmp_path):
        file, plan = tmp_path / "net.so", tmp_path / "exits.json"
        given = ("--policy", made["p.json"], "--seen", made["seen.npz"], "-o", plan)
        pins = ("--pin", "trunk=cpu-1", "--pin", "exit1=cpu-1", "--pin", "exit2=cpu-1")
        succeed("exits", "plan", NETWORK, *given, *pins, *QUICK)
        given = (NETWORK, plan, "-o", file, "--race", "0s", "--batch", "2", "--no-verify")
        text = succeed("exits", "compile", *given, run=layoutsel)
        with load(file) as model:
            most = model.prepare_batches()
        line = "time per request of a full batch, by its size:"
        assert (line in text) == (most == 2)
        assert (line in succeed("exits", "explain", file)) == (most == 2)
        found = json.loads(succeed("exits", "explain", file, "--json"))
        assert ("batches" in found) == (most == 2)

    def test_exits_beside_the_trunk_are_declined(self, made, tmp_path):
        plan = tmp_path / "exits.json"
        given = ("--policy", made["p.json"], "--seen", made["seen.npz"], "-o", plan)
        succeed("exits", "plan", NETWORK, *given, "--pin", "exit1=cpu-1b", *QUICK)
        output = tmp_path / "net.so"
        given = (NETWORK, plan, "-o", output, "--race", "0s", "--batch", "2", "--no-verify")
        assert "batches run on one worker" in refused("exits", "compile", *given)
        assert not output.exists()


class TestRun:
    def test_answers_follow_the_policy(self, made):
        printed = json.loads(succeed("exits", "run", made["net.so"], SAMPLES, "--json"))
        seen, labels = ExitMatrix.load(made["seen.npz"]), np.load(SAMPLES)["labels"]
        thresholds = dict(zip(seen.exits, Policy.load(made["p.json"]).thresholds, strict=True))
        right = 0
        for row, each in enumerate(printed["each"]):
            exit_ = seen.exits.index(each["exit"])
            assert each["score"] == pytest.approx(seen.scores[row, exit_], abs=1e-4)
            assert each["score"] >= (thresholds[each["exit"]] or 0)
            assert each["label"] == seen.predictions[row, exit_]
            assert each["truth"] == labels[row]
            assert each["us"] > 0
            right += each["label"] == each["truth"]
        assert printed["accuracy"] == pytest.approx(right / len(labels))
        assert sum(printed["shares"].values()) == pytest.approx(1)
        assert 0 < printed["p50_us"] <= printed["p95_us"] <= printed["p99_us"]

    def test_the_table_has_the_first_answers_and_every_exit(self, made):
        lines = succeed("exits", "run", made["net.so"], SAMPLES, "--first", "3").splitlines()
        assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
        assert [line.split()[0] for line in lines[6:]] == ["exit1", "exit2", "final", "all"]
        assert lines[-1].split()[1:3] == ["3", "100.0"]

    def test_without_labels(self, made, tmp_path):
        np.savez(tmp_path / "x.npz", x=np.load(SAMPLES)["x"][:2])
        printed = json.loads(succeed("exits", "run", made["net.so"], tmp_path / "x.npz", "--json"))
        assert printed["accuracy"] is None
        assert [each["truth"] for each in printed["each"]] == [None, None]


class TestBench:
    def test_arrangements_answer_the_same_samples(self, made):
        arguments = ("bench", made["net.so"], SAMPLES, "--first", "20", "--rounds", "2", "--json")
        rows = {
            one["name"]: one for one in json.loads(succeed("exits", *arguments))["arrangements"]
        }
        assert {row["answers"] for row in rows.values()} == {40}
        alone = rows["trunk alone"]
        assert alone["shares"] == {"final": 1.0}
        seen = ExitMatrix.load(made["seen.npz"]).part(np.arange(20))
        assert alone["accuracy"] == pytest.approx((seen.predictions[:, -1] == seen.labels).mean())
        text = succeed("exits", *arguments[:-1])
        assert [line.split("  ")[0] for line in text.splitlines()[1:]] == list(rows)

    def test_beside_loads(self, made):
        arguments = ("bench", made["net.so"], SAMPLES, "--first", "5", "--rounds", "1")
        printed = json.loads(succeed("exits", *arguments, "--loads", "0,100", "--json"))
        by_load = {0.0: [], 1.0: []}
        for row in printed["arrangements"]:
            by_load[row["load"]].append(row["name"])
        assert by_load[0.0] == by_load[1.0]
        text = succeed("exits", *arguments, "--loads", "25,75")
        assert "load 25% of the first core" in text


@pytest.fixture(scope="module")
def adapting(made):
    """Artifact with a table of arrangements by load, and what the command printed."""
    file = made["net.so"].with_name("loads.so")
    given = (NETWORK, made["exits.json"], "-o", file, "--for-loads", "--seen", made["seen.npz"])
    return file, succeed("exits", "compile", *given, "--race", "1s", run=layoutsel)


class TestForLoads:
    def test_the_table_is_printed_and_kept(self, adapting):
        file, compiled = adapting
        document = json.loads(succeed("exits", "explain", file, "--json"))
        by_load = document.pop("by_load")
        plan = ExitPlan.read(document)
        table = LoadTable.read(by_load, plan.costs)
        assert all(factor not in (0, 1) for factor in table.factors)  # all of them are measured
        for text in (compiled, succeed("exits", "explain", file)):
            rows = text.split("arrangements by load")[1].splitlines()[2 : 2 + table.grid.cells]
            for cell, row in enumerate(rows):
                one = table.arrangements[table.chosen[cell]]
                us = table.values_us[cell, table.chosen[cell]]
                workers = " ".join([one.trunk, *(worker or "off" for worker in one.branches)])
                busy = table.grid.load(cell).busy_cores
                assert row.split() == [
                    *(f"{busy:g} {workers} {us / 1e3:.3f} ms").split(),
                    *f"{table.values_us[cell, table.off[cell]] / 1e3:.3f} ms".split(),
                    f"{table.regret[cell]:.1%}",
                ]

    def test_one_load(self, adapting):
        file, _ = adapting
        table = json.loads(succeed("exits", "explain", file, "--json"))["by_load"]
        cores = table["grid"]["cores"]
        printed = json.loads(succeed("exits", "explain", file, "--load", f"cpu={cores}", "--json"))
        assert printed["busy_cores"] == cores
        times_us = [one["predicted_us"] for one in printed["arrangements"]]
        assert times_us == sorted(times_us)
        values_us = np.multiply(table["value_us"][-1], table["factors"])
        assert times_us == pytest.approx(sorted(values_us))
        assert [one["is_chosen"] for one in printed["arrangements"]].index(True) == 0
        alone = [one["workers"].split()[1:] for one in printed["arrangements"] if one["is_off"]]
        assert [set(one) for one in alone] == [{"off"}]

    def test_a_plan_has_predictions_for_loads(self, made):
        plan = ExitPlan.load(made["exits.json"])
        printed = json.loads(
            succeed("exits", "explain", made["exits.json"], "--load", "cpu=0", "--json")
        )
        best = printed["arrangements"][0]
        assert best["predicted_us"] == pytest.approx(plan.value_us, rel=0.02)
        assert best["measured_factor"] == 1
        text = succeed("exits", "explain", made["exits.json"], "--load", "cpu=0.1")
        assert "0 of" in text
        assert "all times are predicted" in text

    def test_run_and_bench_adapt(self, adapting, made):
        file, _ = adapting
        printed = json.loads(succeed("exits", "run", file, SAMPLES, "--json"))
        fixed = json.loads(succeed("exits", "run", made["net.so"], SAMPLES, "--json"))
        assert fixed["adapted"] is None
        assert printed["adapted"]["workers"].startswith("cpu-")
        assert "arrangement at the end, for" in succeed("exits", "run", file, SAMPLES)
        arguments = ("bench", file, SAMPLES, "--first", "5", "--rounds", "1", "--json")
        rows = json.loads(succeed("exits", *arguments))["arrangements"]
        assert [row["name"] for row in rows[:2]] == ["by the load", "as compiled"]
        assert len({row["answers"] for row in rows}) == 1


def test_bad_input_is_one_line(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("wrong.npz", x=np.zeros((3, 5), np.float32))
    (tmp_path / "text.so").write_text("no artifact")
    planned = ("plan", NETWORK, "--policy", made["p.json"], *QUICK, "-o", "e.json")
    for arguments, message in (
        ((*planned, "--objective", "best"), "objective: got 'best'; expected one of mean, p50"),
        ((*planned, "--answer", "last"), "answer: got 'last'; expected one of first, ordered"),
        ((*planned, "--pin", "exit9=off"), "cannot read pin 'exit9=off'"),
        ((*planned, "--threads", "4096"), "threads: got 4096; expected 1 to"),
        ((*planned, "--seen", SAMPLES), "a file of 'layoutsel exits observe'"),
        (("plan", NETWORK, "-o", "e.json"), "its specification has no policy"),
        (("explain", made["p.json"]), "at $.score: got an unknown field"),
        (("explain", "none.json"), "cannot read none.json"),
        (("explain", made["exits.json"], "--load", "gpu=1"), "--load gpu=1: expected cpu="),
        (("explain", made["exits.json"], "--load", "cpu=nan"), "--load cpu=nan: expected cpu="),
        (("explain", made["exits.json"], "--load", "cpu=999"), "999 busy cores; expected 0 to"),
        (("explain", made["exits.json"], "--load", "cpu=1", "--forced", "exit1"), "one of them"),
        (("compile", NETWORK, made["exits.json"], "-o", "net.bin"), ".so"),
        (
            ("compile", NETWORK, made["exits.json"], "-o", "n.so", "--seen", made["seen.npz"]),
            "--seen is for the audit of --for-loads",
        ),
        (("compile", NETWORK, made["p.json"], "-o", "net.so"), "at $.score: got an unknown field"),
        (("run", "text.so", SAMPLES), "text.so"),
        (("run", made["net.so"], "wrong.npz"), "expected float32 of shape"),
        (("run", made["net.so"], "none.npz"), "cannot read none.npz"),
        (("bench", made["net.so"], "wrong.npz"), "expected float32 of shape"),
        (("bench", made["net.so"], SAMPLES, "--loads", "50,101"), "--loads 50,101: expected"),
        (("bench", made["net.so"], SAMPLES, "--loads", "0,0"), "--loads 0,0: expected"),
    ):
        assert message in refused("exits", *arguments)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["text.so", "wrong.npz"]
