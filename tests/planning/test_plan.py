"""Plans as files: round trip, every kind of damage, and fit."""

import json
import random
from dataclasses import replace

import pytest

from layoutsel.documents import DocumentError
from layoutsel.planning.check_fits import PlanMismatch, check_fits
from layoutsel.planning.new_plan import make_plan
from layoutsel.planning.plan import Measured, Plan, Uncertainty
from layoutsel.planning.solve import solve
from tests.planning.problems import graph_problem, residual_chain
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline, IllegalDecision, LayoutselError


@pytest.fixture(scope="module")
def problem():
    made = graph_problem(residual_chain(2), random.Random(3))
    decline = Decline(
        subgraph="s1", operator="nn.conv2d", decision="cpu:NCHW8c", got="30", expected="32"
    )
    first, *rest = made.nodes
    return replace(made, nodes=(replace(first, declines=(decline,)), *rest))


@pytest.fixture(scope="module")
def plan(problem):
    return make_plan(
        problem,
        solve(problem),
        strategy="joint",
        machine="m",
        versions={"tvm": "0.27"},
        score_cost_us=1234,
        uncertainty=Uncertainty(bound_us=1.0, loss_us=2.0),
        measured={"plan": Measured(median_us=1.5, spread_us=0.5, runs=3)},
    )


def test_round_trip(plan, tmp_path):
    file = tmp_path / "plan.json"
    plan.save(file)
    assert Plan.load(file) == plan
    assert plan.gap == 0
    assert plan.cost_us == pytest.approx(plan.bound_us)
    assert plan.declines[0].got == "30"
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]
    plan.save(file)
    assert Plan.load(file) == plan


def edit(path, value):
    """A function that sets `path` (keys and indices) in a document; the value ``del`` deletes."""

    def apply(document):
        *front, last = path
        for key in front:
            document = document[key]
        if value == "del":
            del document[last]
        else:
            document[last] = value

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit(["schema_version"], 1), r"\$\.schema_version: got 1; expected 3 or 4"),
        (edit(["schema_version"], "1"), r'\$\.schema_version: got "1"; expected an integer'),
        (edit(["schema_version"], True), r"\$\.schema_version: got true; expected an integer"),
        (edit(["schema_version"], "del"), r"\$\.schema_version: got nothing"),
        (edit(["gap"], "del"), r"\$\.gap: got nothing; expected this field"),
        (edit(["colour"], 1), r"\$\.colour: got an unknown field; expected one of schema_"),
        (edit(["cost_us"], None), r"\$\.cost_us: got null; expected a finite number"),
        (edit(["cost_us"], 10**400), r"\$\.cost_us: got 1000.*; expected a finite number"),
        (edit(["subgraphs"], {}), r"\$\.subgraphs: got {}; expected a list"),
        (edit(["subgraphs", 2], 7), r"\$\.subgraphs\[2\]: got 7; expected an object"),
        (
            edit(["subgraphs", 1, "decision"], "cpu"),
            r"\$\.subgraphs\[1\]\.decision: got 'cpu'; expected unit\[@",
        ),
        (edit(["subgraphs", 1, "decision"], 4), r"\.decision: got 4; expected a decision such as"),
        (edit(["subgraphs", 1, "id"], "s0"), r"\$\.subgraphs\[1\]\.id: got 's0' a second time"),
        (edit(["versions"], []), r"\$\.versions: got \[\]; expected an object"),
        (edit(["versions", "tvm"], 27), r"\$\.versions\.tvm: got 27; expected a string"),
        (edit(["measured", "plan", "runs"], 1.5), r"\.plan\.runs: got 1\.5; expected an integer"),
    ],
)
def test_a_damaged_field_is_one_clear_error(plan, tmp_path, damage, message):
    file = tmp_path / "plan.json"
    plan.save(file)
    document = json.loads(file.read_text())
    damage(document)
    file.write_text(json.dumps(document))
    with pytest.raises(DocumentError, match=message) as caught:
        Plan.load(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1, column 1: got Expecting value; expected valid JSON"),
        (b'{"a": 1', "line 1, column 8"),
        (b"[]", r"\$: got \[\]; expected an object"),
        (b"null", r"\$: got null; expected an object"),
        (b'{"cost_us": NaN}', "got NaN; expected a finite number"),
        (b"\xff\xfe", "expected a readable UTF-8 file"),
        (b"[" * 200_000, "expected valid JSON"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, content, message):
    file = tmp_path / "plan.json"
    file.write_bytes(content)
    with pytest.raises(DocumentError, match=message):
        Plan.load(file)


def test_missing_file_and_unwritable_folder(plan, tmp_path):
    with pytest.raises(DocumentError, match="no such file"):
        Plan.load(tmp_path / "none.json")
    with pytest.raises(DocumentError, match="expected a readable UTF-8 file"):
        Plan.load(tmp_path)
    with pytest.raises(LayoutselError, match="cannot write"):
        plan.save(tmp_path / "no" / "plan.json")


def test_truncations_never_load(plan, tmp_path):
    file = tmp_path / "plan.json"
    plan.save(file)
    whole = file.read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        with pytest.raises(DocumentError):
            Plan.load(file)


def edited(plan, position, decision):
    subgraphs = list(plan.subgraphs)
    subgraphs[position] = replace(subgraphs[position], decision=Decision.parse(decision))
    return replace(plan, subgraphs=tuple(subgraphs))


def test_check_fits(plan, problem):
    ids = [node.id for node in problem.nodes]
    check_fits(plan, model_hash="abc", ids=ids, machine="m", problem=problem)
    check_fits(plan, model_hash="abc", ids=ids)
    with pytest.raises(PlanMismatch, match=r"another model, .*: got the hash abc; expected xyz"):
        check_fits(plan, model_hash="xyz", ids=ids)
    with pytest.raises(PlanMismatch, match="decides sub-graph s6, which the model does not have"):
        check_fits(plan, model_hash="abc", ids=ids[:-1])
    with pytest.raises(
        PlanMismatch, match=r"It numbers sub-graphs, such as s0, .*'layoutsel plan'"
    ):
        check_fits(plan, model_hash="abc", ids=["conv2d_07c1e2"])
    with pytest.raises(PlanMismatch, match="no decision for sub-graph s99"):
        check_fits(plan, model_hash="abc", ids=[*ids, "s99"])
    with pytest.raises(PlanMismatch, match="another machine: got m, expected n"):
        check_fits(plan, model_hash="abc", ids=ids, machine="n")
    with pytest.raises(IllegalDecision, match=r"s1 \(nn\.conv2d\) has no candidate gpu:NHWC"):
        check_fits(edited(plan, 1, "gpu:NHWC"), model_hash="abc", ids=ids, problem=problem)


def test_errors_of_a_roofline_are_shared(plan):
    def spread(*sources):
        subgraphs = [
            replace(one, decision=Decision.parse(decision), source=source, spread_us=us)
            for one, (decision, source, us) in zip(plan.subgraphs, sources, strict=False)
        ]
        return replace(plan, subgraphs=tuple(subgraphs)).spread_us

    measured = ("cpu:NCHW", "measured", 3.0), ("cpu:NCHW", "measured", 4.0)
    guessed = ("cuda:NCHW", "roofline", 5.0), ("cuda:NCHW", "roofline", 7.0)
    assert spread(*measured) == pytest.approx(5.0)
    assert spread(*guessed) == pytest.approx(12.0)
    assert spread(*measured, *guessed) == pytest.approx(13.0)
