"""Tuning, resuming, and what plans and builds make of the records."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import tvm

import layoutsel
from layoutsel.compile.measuring import request_for
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.tuning.lines import Lines
from layoutsel.tuning.tasks import gather_tasks
from layoutsel.units.layouts import packed_layout
from tests.cli.command import refused, succeed
from tests.tuning.conftest import LAYOUTS, TRIALS, convolution, record_lines
from tvm_passes.decision import Decision
from tvm_passes.layout import block_size
from tvm_passes.tuned import current_database

TUNED = [f"cpu:{layout}:f32:tuned" for layout in LAYOUTS]


def candidates(model, **options) -> list[str]:
    """What the CPU offers for the convolution."""
    session = Session.open(str(model), units=["cpu"], threads=1, **options)
    (offered, *_) = Offers.of(session).candidates.values()
    return [str(decision) for decision in offered.decisions]


def test_every_layout_gets_its_trials(tuned):
    folder, printed = tuned
    assert f"{len(LAYOUTS)} tasks, {len(LAYOUTS) * TRIALS} new trials" in printed
    assert len(record_lines(folder)) == len(LAYOUTS) * TRIALS
    lines = Lines(folder, tvm.__version__)
    assert not lines.skipped
    assert len({line.workload.hash for line in lines.records}) == len(LAYOUTS)
    shapes = {tuple(tuple(shape) for *_, shape in line.json[3]) for line in lines.records}
    block = block_size(packed_layout())
    chunks, results = 16 // block, 32 // block
    weight = (results, chunks, 3, 3, block, block)
    bias, result = (1, results, 1, 1, block), (1, results, 8, 8, block)
    assert ((1, chunks, 8, 8, block), weight, bias, result) in shapes
    assert "MetaSchedule" not in printed
    assert (folder / "tune.log").stat().st_size


@pytest.mark.nightly
def test_resuming_makes_only_what_is_missing(model, logs):
    again = ["tune", model, "--threads", 1, "--logs", logs, "--trials"]
    assert f" 0 new trials, {len(LAYOUTS) * TRIALS} recorded before" in succeed(*again, TRIALS)
    assert f" {len(LAYOUTS)} new trials" in succeed(*again, TRIALS + 1)
    lines = [json.dumps(line[1][0]) for line in record_lines(logs)]
    assert len(lines) == len(LAYOUTS) * (TRIALS + 1)


def test_records_serve_every_model_with_the_same_sub_graph(model, tmp_path, tuned):
    other = convolution(tmp_path / "other.onnx", seed=7, head=True)
    sessions = [Session.open(str(path), units=["cpu"]) for path in (model, other)]
    alone, both = gather_tasks(sessions[:1]), gather_tasks(sessions)
    assert len(both) == len(alone) + 1
    assert sorted(task.occurrences for task in both) == [1, 2, 2, 2]
    assert set(TUNED) <= set(candidates(other, logs=tuned[0]))


def test_candidates_are_offered_where_there_are_records(model, tuned, cache_home):
    assert set(TUNED) <= set(candidates(model, logs=tuned[0]))
    assert not set(TUNED) & set(candidates(model))
    assert current_database() is None
    default = cache_home / "layoutsel" / "tuning"
    default.parent.mkdir(parents=True, exist_ok=True)
    default.symlink_to(tuned[0])
    try:
        assert set(TUNED) <= set(candidates(model))
    finally:
        default.unlink()


@pytest.mark.parametrize("decision", TUNED)
def test_tuned_builds_are_right(model, tuned, decision, tmp_path):
    compiled = layoutsel.optimize(
        str(model),
        logs=tuned[0],
        units=["cpu"],
        threads=1,
        cost="roofline",
        pins=[f"nn.conv2d={decision}"],
        verify_speed=False,
    )
    assert [entry["decision"] for entry in compiled.plan["subgraphs"]] == [decision]
    assert not compiled.header["fallbacks"]
    assert any("_tuned_" in call for call, _ in compiled.header["calls"])
    x = np.random.default_rng(3).standard_normal((1, 16, 8, 8)).astype("float32")
    (expected,) = onnxruntime.InferenceSession(str(model)).run(None, {"x": x})
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-4, atol=1e-5)
    compiled.save(tmp_path / "tiny.so")
    np.testing.assert_array_equal(layoutsel.load(tmp_path / "tiny.so")(x), compiled(x))


def test_a_faster_record_wins_and_the_plan_says_so(model, logs):
    file = logs / "database_tuning_record.json"
    lines = record_lines(logs)
    for line in lines:
        line[1][1] = [1e-9]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    printed = succeed("plan", model, "--logs", logs, "--threads", 1, "--units", "cpu")
    row = next(line for line in printed.splitlines() if line.startswith("conv2d_"))
    assert "tuned" in row.split()


def test_measurements_belong_to_the_record(model, logs):
    def keys() -> dict[str, str]:
        session = Session.open(str(model), units=["cpu"], threads=1, logs=logs)
        offers = Offers.of(session)
        subgraph = session.graph.subgraphs[0]
        assert request_for(offers, subgraph, Decision(unit="cpu")).key == subgraph.structural_hash
        requests = [request_for(offers, subgraph, Decision.parse(decision)) for decision in TUNED]
        assert all(request.payload["record"] for request in requests)
        return {str(request.decision): request.key for request in requests}

    before = keys()
    assert keys() == before
    assert len(set(before.values())) == len(TUNED)
    lines = record_lines(logs)
    best = min((line for line in lines if line[0] == 0), key=lambda line: sum(line[1][1]))
    kept = [json.dumps(line) + "\n" for line in lines if line is not best]
    (logs / "database_tuning_record.json").write_text("".join(kept))
    after = keys()
    assert sum(after[decision] != before[decision] for decision in TUNED) == 1


@pytest.mark.nightly
def test_tuned_candidates_are_measured(model, tuned, tmp_path):
    printed = succeed(
        *("plan", model, "--logs", tuned[0], "--threads", 1, "--units", "cpu"),
        *(
            "--cost",
            "measured",
            "--cache",
            tmp_path / "cache.sqlite",
            "--pin",
            f"nn.conv2d={TUNED[1]}",
        ),
    )
    row = next(line for line in printed.splitlines() if line.startswith("conv2d_"))
    assert {"NHWC", "tuned", "MEASURED"} <= set(row.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tune", "nothing.onnx"], "nothing.onnx"),
        (["tune", "MODEL", "--tracker", "localhost:9190"], "--tracker without --key"),
        (["tune", "MODEL", "--key", "board"], "--key without --tracker"),
        (["tune", "MODEL", "--tracker", "localhost", "--key", "board"], "expected HOST:PORT"),
        (["tune", "MODEL", "--tracker", "localhost:1", "--key", "board"], "no RPC tracker answers"),
        (["tune", "MODEL", "--target", "llvm"], "--target without --tracker"),
        (["tune", "MODEL", "--logs", "FILE"], "cannot write tuning records"),
        (["plan", "MODEL", "--logs", "EMPTY"], "no tuning records"),
        (["plan", "MODEL", "--pin", "nn.conv2d=cpu:NHWC:f32:tuned"], "conv2d_"),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments, expected, model, tmp_path):
    (tmp_path / "file").write_text("")
    names = {"MODEL": model, "FILE": tmp_path / "file", "EMPTY": tmp_path}
    assert expected in refused(*(names.get(argument, argument) for argument in arguments))
