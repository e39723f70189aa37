"""The table of operators: complete, consistent with TVM, and readable without it."""

import importlib
import subprocess
import sys
from collections import Counter

import pytest
import tvm
from tvm.relax.frontend.onnx import onnx_frontend

from layoutsel.cost.features import VOCABULARY
from layoutsel.cost.learned import LearnedModel, feature_names
from tvm_passes.deferred import Deferred
from tvm_passes.errors import LayoutselError
from tvm_passes.operators import (
    OPERATORS,
    OnnxOperator,
    Operator,
    Role,
    Trait,
    find_onnx,
    find_operator,
    role,
)

DECLINED = {"AllClassNMS", "NonMaxSuppression"}
"""Operators whose converters in TVM fail ONNX's own tests."""
MICROSOFT = {
    *("Attention", "BiasGelu", "EmbedLayerNormalization", "FastGelu", "Gelu"),
    "SkipLayerNormalization",
}
MISSING = {"nn.relu6"}
"""Operators that TVM had once, and modules may name."""
ENTRIES = [*OPERATORS.values()]
IMPORTED = {(one.domain, one.name) for e in ENTRIES for one in e.onnx if one.is_imported}


def test_every_converter_of_tvm_has_an_entry():
    known = set(onnx_frontend._get_convert_map())
    assert {name for domain, name in IMPORTED if not domain} == known - DECLINED - (
        MICROSOFT - {"Gelu"}
    )
    assert {name for domain, name in IMPORTED if domain} == MICROSOFT


def test_operators_are_those_of_tvm():
    known = {name.removeprefix("relax.") for name in tvm.ir.Op.list_op_names()}
    own = {entry.name for entry in ENTRIES if entry.role is not Role.COMPOSITION}
    assert own - known == MISSING


def test_each_operator_of_onnx_has_one_entry():
    found = Counter((one.domain, one.name) for entry in ENTRIES for one in entry.onnx)
    assert [key for key, count in found.items() if count > 1] == []


def test_every_entry_is_documented_in_one_sentence():
    wrong = [
        e.name for e in ENTRIES if not e.documentation.endswith(".") or "\n" in e.documentation
    ]
    assert wrong == []


def test_deferred_functions_exist():
    fields = (value for entry in ENTRIES for value in vars(entry).values())
    targets = {value.target for value in fields if isinstance(value, Deferred)}
    assert len(targets) > 20
    for target in targets:
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), target


def test_anchors_are_numbered_as_the_shipped_model_names_them():
    numbers = [e.encoding.anchor for e in ENTRIES if e.encoding and e.encoding.anchor is not None]
    assert len(set(numbers)) == len(numbers)
    assert len(VOCABULARY["anchor"]) == len(numbers) + 3  # elementwise, lrn and movement
    assert LearnedModel.load().card.features == feature_names()


def names_with(trait):
    return {name for name, entry in OPERATORS.items() if trait in entry.traits}


def test_an_operator_that_quantises_fuses_and_moves_no_elements():
    for name in names_with(Trait.QUANTIZES):
        assert role(name) is Role.ELEMENTWISE
    assert names_with(Trait.RENAMES) - {"Identity"} <= names_with(Trait.KEEPS_ELEMENTS)
    moved = {e.name for e in ENTRIES if e.role is Role.MOVEMENT}
    assert moved <= names_with(Trait.KEEPS_ELEMENTS)


def test_an_unknown_operator_is_an_anchor_without_an_encoding():
    entry = find_operator("example.unknown")
    assert (entry.role, entry.encoding, entry.onnx) == (Role.ANCHOR, None, ())
    assert "example.unknown" not in OPERATORS


def test_two_entries_of_one_operator_of_onnx_are_refused(monkeypatch):
    other = Operator(name="mine", documentation="Mine.", onnx=(OnnxOperator(name="Relu"),))
    monkeypatch.setattr(OPERATORS, "_entries", {**OPERATORS, "mine": other})
    with pytest.raises(LayoutselError, match="two entries have the operator Relu of domain"):
        find_onnx("Relu")


def test_the_table_needs_neither_tvm_nor_onnx():
    code = (
        "import sys; sys.modules['tvm'] = sys.modules['onnx'] = None;"
        "from tvm_passes.operators import OPERATORS; assert len(OPERATORS) > 150"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
