"""Digests of the code that kernels come from: what changes them, what does not, and that nothing is forgotten."""

import ast
import functools
import importlib
import inspect
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tvm import relax

import layoutsel
import tvm_passes
from layoutsel.building.candidate import build_candidate
from layoutsel.compile.code_digest import Code, Definition
from layoutsel.compile.kept_digests import FILE, kept_digests
from layoutsel.compile.versions import (
    all_roots,
    all_versions,
    code_digests,
    code_source,
    code_versions,
    roots,
    stops_of,
)
from layoutsel.cost import scopes
from tvm_passes.algorithms import ALGORITHMS
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import host_target
from tvm_passes.cpu.kernels import PLANNERS
from tvm_passes.decision import Decision
from tvm_passes.operators import OPERATORS, Operator
from tvm_passes.partition import PartitionSubgraphs

FOLDERS = {one.__name__: Path(one.__file__).parent for one in (layoutsel, tvm_passes)}


class Edited(Code):
    """The packages with some files changed."""

    def __init__(self, edit):
        super().__init__(FOLDERS)
        self.edit = edit

    def source(self, file):
        name = file.relative_to(FOLDERS["tvm_passes"].parent).as_posix()
        return self.edit(name, super().source(file))

    @staticmethod
    @functools.cache
    def parsed(name, package, source):
        """Each source is parsed once: most edits change one file."""
        return Code(FOLDERS).parsed(name, package, source)


def unchanged():
    """The packages as they are, with the sources that were parsed before."""
    return Edited(lambda _name, text: text)


def redocumented(_name, text):
    """Other comments, docstrings, positions and blank lines."""
    told = re.sub(r'(?m)^(\s*)"""(?=\w)', r'\1"""Said otherwise: ', text.decode())
    return re.sub(r"(?m)^( *)(def |class )", r"\1# A comment.\n\n\1\2", told).encode()


def test_documentation_and_formatting_change_nothing():
    assert code_digests(Edited(redocumented)) == code_versions()


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        (
            "tvm_passes/cpu/winograd_matrices.py",
            "Fraction(",
            "Fraction(0) + Fraction(",
            {"cpu.winograd"},
        ),
        ("tvm_passes/cpu/matvec.py", "return ", "return 1 and ", {"cpu.products"}),
        ("tvm_passes/cpu/rows.py", "return ", "return 1 and ", {"cpu.rows"}),
        ("tvm_passes/cpu/generic_schedule.py", "return ", "return 1 and ", {"cpu.generic"}),
        ("tvm_passes/amx/emitter.py", "return ", "return 1 and ", {"amx"}),
        ("tvm_passes/onednn/elementwise.py", "return ", "return 1 and ", {"onednn"}),
        ("tvm_passes/gpu/wmma.py", "return ", "return 1 and ", {"cuda", "opencl"}),
        ("tvm_passes/cpu/lower.py", "return ", "return 1 and ", {"cpu"}),
        (
            "tvm_passes/legalize.py",
            "return ",
            "return 1 and ",
            {"cpu.generic", "cpu.tuned", "cuda", "opencl"},
        ),
        ("tvm_passes/operators/reductions.py", "per_input(3)", "per_input(4)", set()),
        ("layoutsel/device/timing.py", "return ", "return 1 and ", {""}),
        ("tvm_passes/partition.py", "return ", "return 1 and ", set()),
        ("layoutsel/cost/features.py", "return ", "return 1 and ", set()),
    ],
)
def test_a_change_changes_its_own_scope(file, old, new, changed):
    def edit(name, text):
        assert name != file or old.encode() in text
        return text.replace(old.encode(), new.encode()) if name == file else text

    now, before = code_digests(Edited(edit)), code_versions()
    assert {scopes.scope(name) for name in now if now[name] != before[name]} == changed


def test_what_kernels_share_changes_all_that_use_it():
    def edit(name, text):
        if name != "tvm_passes/cpu/emit.py":
            return text
        assert b" = T.Bind\n" in text
        return text.replace(b" = T.Bind\n", b" = T.Bind or None\n")

    now, before = code_digests(Edited(edit)), code_versions()
    changed = {scopes.scope(name) for name in now if now[name] != before[name]}
    families = {scope for scope in roots() if scope.startswith("cpu.")}
    assert changed == {"amx", "cpu", *families} - {"cpu.generic", "cpu.tuned"}


NOT_CODE = {
    # What a sub-graph is made of before it is decided is in its hash.
    *("normalize", "cancel_transforms", "expose_logits"),
    # Whether a candidate is possible; its code is the same where it is.
    *("amx.legality", "cpu.legality", "gpu.legality", "onednn.legality", "amx.machine", "limits"),
    "generic_forms",
    # The table of units, each of which has a scope; the order of whole models, and how they are cut into stages.
    *("backends", "units", "order_subgraphs", "split_stages", "stages"),
    # How sub-graphs are cut out is in their hash as well.
    *("lrn", "partition"),
    # Names alone.
    *("name_subgraphs", "short_name"),
    # Facts about operators; the rules of legalisation that they name have scopes. Converters.
    *("onnx", "operators"),
    # Tables of entries, and entries that choose among the code of others.
    *("registry", "deferred", "algorithms.alt1", "algorithms.direct", "algorithms.tuned"),
}
"""Modules of `tvm_passes` that no candidate's code comes from."""


@functools.cache
def reached():
    code = unchanged()
    return {
        scope: code.reached(starts, stops_of(scope)) for scope, starts in all_roots(code).items()
    }


def test_every_module_that_generates_code_is_in_a_scope():
    covered = {one.module for definitions in reached().values() for one in definitions}
    code = unchanged()
    for module in code.modules:
        name = module.removeprefix("tvm_passes").removeprefix(".")
        if not module.startswith("tvm_passes") or module in covered:
            continue
        is_package = any(other.startswith(f"{module}.") for other in code.modules)
        assert is_package or {name, name.partition(".")[0]} & NOT_CODE, (
            f"{module} is in no scope of layoutsel.compile.versions: name it there, or in NOT_CODE with a reason"
        )


def test_every_import_of_our_own_is_followed():
    code = unchanged()
    for name in code.modules:
        for target in code.imports(name).values():
            source = code.imports(target.module).get(target.name, target)
            if source.module.partition(".")[0] in FOLDERS:
                assert code.follow(target), f"{name} imports {target}"


def test_every_unit_kernel_and_algorithm_has_a_scope():
    assert set(BACKENDS) <= set(roots())
    assert set(scopes.FAMILIES) == {*PLANNERS, scopes.DEPTHWISE}
    for algorithm in ALGORITHMS.values():
        families = {f for unit in algorithm.units for f in algorithm.families(unit)}
        assert families <= set(roots())
        assert families or algorithm.is_default
    assert scopes.every_unit() == set(roots())


def test_plugins_are_known_by_their_sources():
    found = all_versions()
    for unit in ("onednn", "opencl"):
        assert re.fullmatch(r"[0-9a-f]{12}|absent", found[f"{unit}:plugin"])
    if BACKENDS["onednn"].unavailable() is None:
        assert found["onednn:plugin"] != "absent"


def test_units_of_other_packages_are_known_by_their_code(tmp_path, monkeypatch):
    file = tmp_path / "some_npu.py"
    monkeypatch.syspath_prepend(str(tmp_path))

    def version(text):
        file.write_text(f"def lower(target):\n    {text}\n")
        monkeypatch.delitem(sys.modules, "some_npu", raising=False)
        importlib.invalidate_caches()
        lower = importlib.import_module("some_npu").lower
        backend = replace(BACKENDS["onednn"], name="npu", lower=lower)
        with BACKENDS.including(backend):
            return all_versions()["npu:code"]

    first = version("return 1")
    assert version('"""Said."""\n    return 1  # so') == first
    assert version("return 2") != first


def test_operators_of_other_packages_are_known_by_their_code(tmp_path, monkeypatch):
    file = tmp_path / "some_operator.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = {**OPERATORS}
    monkeypatch.setattr(OPERATORS, "_entries", entries)

    def found(text):
        file.write_text(f"def legalize(builder, call):\n    {text}\n")
        monkeypatch.delitem(sys.modules, "some_operator", raising=False)
        importlib.invalidate_caches()
        rule = importlib.import_module("some_operator").legalize
        entries["some"] = Operator(name="some", documentation="Some.", legalize=rule)
        return {name: text for name, text in all_versions().items() if name.endswith(":some")}

    first = found("return 1")
    assert set(first) == {
        f"{scope}:some" for scope in ("cpu.generic", "cpu.tuned", "cuda", "opencl")
    }
    assert found("return 1  # so") == first
    assert set(found("return 2").values()).isdisjoint(first.values())


def convolution(groups=1, kernel=3):
    def build(x):
        weights = np.ones((16, 16 // groups, kernel, kernel), "float32")
        return relax.op.nn.relu(
            relax.op.nn.conv2d(x, relax.const(weights), padding=kernel // 2, groups=groups)
        )

    return (1, 16, 8, 8), build


CASES = {
    "direct": (convolution(), "cpu:NCHW16c"),
    "plain": (convolution(), "cpu:NCHW"),
    "winograd": (convolution(), "cpu:NCHW16c:f32:winograd"),
    "depthwise": (convolution(groups=16), "cpu:NHWC"),
    "pooling": (((1, 16, 8, 8), lambda x: relax.op.nn.max_pool2d(x, (2, 2))), "cpu:NCHW16c"),
    "softmax": (((4, 16), relax.op.nn.softmax), "cpu:NCHW"),
    "product": (
        ((1, 16), lambda x: relax.op.matmul(x, relax.const(np.ones((16, 16), "float32")))),
        "cpu:NCHW",
    ),
    "batched": (
        ((2, 4, 4), lambda x: relax.op.matmul(x, x)),
        "cpu:NCHW",
    ),
    "pointwise": (((1, 16, 8, 8), relax.op.exp), "cpu:NHWC"),
    "generic": (((4, 16), lambda x: relax.op.cumsum(x, axis=1)), "cpu:NCHW"),
    "onednn": (convolution(), "onednn:NHWC"),
}


def called_in(build):
    """The definitions of `tvm_passes` that run while `build` does."""
    seen, root = set(), str(FOLDERS["tvm_passes"])

    def note(frame, event, _argument):
        # The body of a class runs when it is imported, by whomever that may be.
        is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
        if event == "call" and is_function and frame.f_code.co_filename.startswith(root):
            seen.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        build()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {found for one in seen if (found := definition_at(*one))}


@functools.cache
def statements(path):
    """Top-level statements of a module."""
    return ast.parse(path.read_bytes()).body


def definition_at(file, line):
    """The top-level definition of a line; None for a module itself."""
    path = Path(file)
    module = ".".join(path.relative_to(FOLDERS["tvm_passes"].parent).with_suffix("").parts)
    for statement in statements(path):
        first = min(
            [statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))]
        )
        if first <= line <= statement.end_lineno and hasattr(statement, "name"):
            return Definition(module.removesuffix(".__init__"), statement.name)
    return None


LOOKING = {
    *("tvm_passes.onednn:LowerOnednn", "tvm_passes.onednn.lower:LowerOnednn"),
    "tvm_passes.onednn.lower:_is_ours",
    *("tvm_passes.cpu.lower:LowerCpu", "tvm_passes.cpu.lower:_Lowering"),
    *("tvm_passes.cpu.place:find_placements", "tvm_passes.cpu.place:_Finder"),
    *("tvm_passes.cpu.absorb:find_absorbed", "tvm_passes.cpu.absorb:_function"),
    "tvm_passes.amx.machine:unavailable",
    *("tvm_passes.registry:Registry", "tvm_passes.registry:_add"),
    *("tvm_passes.registry:entries_in", "tvm_passes.algorithms:_own"),
}
"""Units at hand look whether anything in a module is theirs, whoever computes it."""
LOOKING_IN = ("tvm_passes.backends:", "tvm_passes.units.", "tvm_passes.deferred:")
"""Modules of the table of units, which choose among code that has scopes."""


@pytest.mark.parametrize("case", CASES)
def test_all_that_runs_for_a_candidate_is_in_its_scopes(case):
    (shape, body), text = CASES[case]
    decision = Decision.parse(text)
    if reason := BACKENDS[decision.unit].unavailable():
        pytest.skip(reason)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(builder.normalize(body(x)))
        builder.emit_func_output(output)
    module = PartitionSubgraphs()(builder.finalize())
    (function,) = (f for gv, f in module.functions.items() if gv.name_hint != "main")
    kernel = scopes.DEPTHWISE if case == "depthwise" else str(function.attrs["layoutsel.anchor"])
    covered = reached()
    allowed = covered[""].union(
        *(covered.get(s, ()) for s in scopes.candidate_scopes(kernel, decision))
    )

    def build():
        build_candidate(function, decision, host_target())

    ran = {f"{one.module}:{one.name}" for one in called_in(build)}
    reached_or_looking = {f"{one.module}:{one.name}" for one in allowed} | LOOKING
    assert {one for one in ran - reached_or_looking if not one.startswith(LOOKING_IN)} == set()
    assert len(ran) > 20


def test_digests_are_kept_for_the_same_code_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "layoutsel" / FILE
    source, other = (code_source(code) for code in (unchanged(), Edited(redocumented)))
    assert source != other
    assert kept_digests(source, lambda: {"code": "first"}) == {"code": "first"}
    assert kept_digests(source, lambda: {"code": "second"}) == {"code": "first"}
    assert kept_digests(other, lambda: {"code": "second"}) == {"code": "second"}
    file.write_text(file.read_text()[:-9])
    assert kept_digests(other, lambda: {"code": "third"}) == {"code": "third"}
    assert kept_digests(other, dict) == {"code": "third"}


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "layoutsel").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for digest in ("first", "second"):
        assert kept_digests("source", lambda digest=digest: {"code": digest}) == {"code": digest}
