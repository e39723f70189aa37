"""Specifications of exits as documents: each inconsistency is one error with its place."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from exit_networks import chain

from layoutsel.documents import DocumentError
from layoutsel.errors import LayoutselError
from layoutsel.exits.network import read
from layoutsel.exits.policy import Certificate, Policy
from layoutsel.exits.spec import METADATA_KEY, Exit, ExitSpec

CERTIFICATE = Certificate(
    max_drop=0.01, confidence=0.95, samples=1200, losses=3, bound=0.0065, data_hash="00"
)
SPEC = ExitSpec(
    format="layoutsel.exits/1",
    model_hash="",
    exits=(Exit(name="exit1", output="e1"), Exit(name="final", output="last")),
    policy=Policy(score="max_prob", thresholds=(0.93, None), certificate=CERTIFICATE),
)


def with_policy(**changes):
    return replace(SPEC, policy=replace(SPEC.policy, **changes))


def with_exits(*pairs):
    return replace(SPEC, exits=tuple(Exit(name=name, output=output) for name, output in pairs))


def test_round_trip(tmp_path):
    SPEC.save(tmp_path / "spec.json")
    assert ExitSpec.load(tmp_path / "spec.json") == SPEC
    model = chain()
    for spec in (replace(SPEC, model_hash="old"), SPEC):
        spec.embed(model)
    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY]
    assert ExitSpec.embedded(model, "chain") == SPEC
    assert ExitSpec.embedded(chain(), "chain") is None


def test_other_metadata_stays():
    model = chain()
    model.metadata_props.add(key="author", value="someone")
    SPEC.embed(model)
    assert model.metadata_props[0].value == "someone"


BAD = {
    "one exit": (with_exits(("final", "last")), "$.exits: got 1 exits"),
    "same name": (with_exits(("a", "e1"), ("a", "last")), "$.exits[1].name: got 'a' a second time"),
    "same output": (with_exits(("a", "y"), ("b", "y")), "$.exits[1].output: got 'y' a second"),
    "odd name": (with_exits(("a-b", "e1"), ("b", "last")), "$.exits[0].name: got 'a-b'"),
    "umlaut": (with_exits(("ä", "e1"), ("b", "last")), "$.exits[0].name: got 'ä'"),
    "format": (replace(SPEC, format="layoutsel.exits/2"), "$.format: got 'layoutsel.exits/2'"),
    "score": (with_policy(score="luck"), "$.policy.score: got 'luck'; expected one of max_prob"),
    "too many": (with_policy(thresholds=(0.9, 0.9, None)), "$.policy.thresholds: got 3 thresholds"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_specifications(what, tmp_path):
    spec, message = BAD[what]
    with pytest.raises(DocumentError) as caught:
        spec.save(tmp_path / "spec.json")
    assert message in str(caught.value)
    assert not (tmp_path / "spec.json").exists()
    with pytest.raises(DocumentError) as caught:
        read(chain(), spec)
    assert message in str(caught.value)


def document(**changes):
    return {
        "format": SPEC.format,
        "model_hash": "",
        "exits": [{"name": "a", "output": "e1"}, {"name": "b", "output": "last"}],
        **changes,
    }


BAD_TEXTS = {
    "not JSON": ("{", "line 1, column 2"),
    "not an object": ("[]", "at $: got []"),
    "another format": (json.dumps({"format": "layoutsel.exits/2"}), '"layoutsel.exits/1"'),
    "unknown field": (json.dumps(document(depth=3)), "depth"),
    "missing": (json.dumps(document(exits=[{"name": "a"}])), "$.exits[0]"),
    "threshold": (
        json.dumps(document(policy={"score": "margin", "thresholds": ["high", None]})),
        "$.policy.thresholds[0]",
    ),
    "above 1": (
        json.dumps(document(policy={"score": "margin", "thresholds": [1.5, None]})),
        "at $.policy: policy of exits: got the threshold 1.5 of exit 1",
    ),
    "endless": ("[" * 100_000, "endless nesting"),
}


@pytest.mark.parametrize("what", BAD_TEXTS)
def test_bad_texts(what, tmp_path):
    text, message = BAD_TEXTS[what]
    file = tmp_path / "spec.json"
    file.write_text(text)
    with pytest.raises(LayoutselError) as caught:
        ExitSpec.load(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    model = chain()
    model.metadata_props.add(key=METADATA_KEY, value=text)
    with pytest.raises(LayoutselError) as caught:
        read(model)
    assert message in str(caught.value)
    assert "net (metadata 'layoutsel.exits')" in str(caught.value)


def test_two_specifications_in_one_model():
    model = chain()
    for _ in range(2):
        model.metadata_props.add(key=METADATA_KEY, value=json.dumps(document()))
    with pytest.raises(DocumentError, match="got 2 specifications; expected one"):
        read(model)
