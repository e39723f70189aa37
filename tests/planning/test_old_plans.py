"""Plan files of schema version 3 are read: all that they say, and nothing that they do not."""

import json
from pathlib import Path

import pytest

from layoutsel.documents import DocumentError, to_json
from layoutsel.planning.plan import SCHEMA_VERSION, Plan
from layoutsel.planning.values import MAKESPAN, SUM, WITHIN_ERROR

FOLDER = Path(__file__).parent / "old_plans"
"""Written by the last version of layoutsel that wrote schema version 3."""


def test_there_are_some():
    assert len(list(FOLDER.glob("*_3.json"))) == 3


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*_3.json")), ids=lambda file: file.stem)
def test_every_field_is_read_as_it_was(file, tmp_path):
    before = json.loads(file.read_text())
    plan = Plan.load(file)
    assert to_json(plan) | {"schema_version": 3} == to_json(plan) | before
    plan.save(tmp_path / "new.json")
    assert json.loads((tmp_path / "new.json").read_text())["schema_version"] == SCHEMA_VERSION
    assert Plan.load(tmp_path / "new.json") == plan


@pytest.mark.parametrize(
    ("name", "objective", "stated"),
    [
        ("sum_3", SUM, {SUM}),
        ("makespan_3", MAKESPAN, {SUM, MAKESPAN}),
        ("budget_3", WITHIN_ERROR, {SUM}),
    ],
)
def test_the_objective_follows_from_the_fields(name, objective, stated):
    plan = Plan.load(FOLDER / f"{name}.json")
    assert (plan.objective, set(plan.values)) == (objective, stated)
    assert bool(plan.order) == (objective == MAKESPAN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost_us": None}, r"\$\.values\.sum\.value: got null; expected a finite number"),
        ({"cost_us": 10**400}, r"expected a finite number"),
        ({"makespan": 7}, r"\$\.makespan: got 7; expected an object"),
        ({"makespan": {"us": 1.0}}, r"got null; expected a finite number"),
        ({"colour": 1}, r"\$\.colour: got an unknown field"),
    ],
)
def test_a_damaged_one_is_one_clear_error(tmp_path, change, message):
    document = json.loads((FOLDER / "makespan_3.json").read_text())
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document | change))
    with pytest.raises(DocumentError, match=message):
        Plan.load(file)


@pytest.mark.parametrize("name", ["cost_us", "bound_us", "gap", "makespan", "values"])
def test_a_missing_field_is_named(tmp_path, name):
    document = to_json(Plan.load(FOLDER / "makespan_3.json"))
    del document[name]
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document))
    with pytest.raises(DocumentError, match=rf"\$\.{name}: got nothing; expected this field"):
        Plan.load(file)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("cost_us",), 1.5, r"\$\.cost_us: got 1\.5; expected 772\.\d+, which follows from"),
        (("makespan", "us"), 1.5, r"\$\.makespan: got .*, which follows from the other fields"),
        (("values",), {}, r"\$\.values\.sum: got nothing; expected this objective"),
        (("values", "sum", "unit"), 1, r"\$\.values\.sum\.unit: got 1; expected a string"),
    ],
)
def test_numbers_of_one_plan_agree(tmp_path, path, value, message):
    document = to_json(Plan.load(FOLDER / "makespan_3.json"))
    *front, last = path
    place = document
    for key in front:
        place = place[key]
    place[last] = value
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document))
    with pytest.raises(DocumentError, match=message):
        Plan.load(file)
