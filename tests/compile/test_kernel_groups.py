"""Object code of a plan's kernels is generated in groups, with the same results; what that spares in memory stays spared."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys

import numpy as np
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import tirx

from layoutsel.building import kernel_groups
from layoutsel.building.build import generate_code
from layoutsel.building.kernel_groups import generate_in_groups
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.device.virtual_machine import load_library, virtual_machine
from layoutsel.errors import LayoutselError
from layoutsel.runtime.linking import link_of

X = np.random.default_rng(1).standard_normal((2, 24)).astype(np.float32)
SIZES = (24, 40, 56, 72, 24)


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """Products of four shapes: each has a kernel of its own."""
    rng = np.random.default_rng(0)
    names = ["x", "a", "b", "c", "y"]
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), f"w{i}")
        for i, shape in enumerate(itertools.pairwise(SIZES))
    ]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(4)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 24])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 24])
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    cache = tmp_path_factory.mktemp("c") / "m.sqlite"
    session = Session.open(model, units=("cpu",), threads=1, cache=cache)
    return session.lower(
        best_plan(session, priced_problem(Offers.of(session), "roofline")).decisions
    )


def run(executable, lowered, folder) -> np.ndarray:
    library = folder / "library.so"
    link_of([executable].pop, library)
    machine = virtual_machine(load_library(library, lowered.devices))
    weights = [tvm.runtime.tensor(weight) for weight in lowered.weights]
    result = machine["main"](tvm.runtime.tensor(X), tvm.runtime.convert(weights))
    return (result if isinstance(result, tvm.runtime.Tensor) else result[0]).numpy()


def parts(executable, kind: str) -> list:
    return executable.mod._collect_from_import_tree(lambda part: part.kind == kind)


@pytest.mark.parametrize("group", [1, 3])
def test_most_groups_become_object_code_and_the_last_one_stays(
    lowered, monkeypatch, tmp_path, group
):
    monkeypatch.setattr(kernel_groups, "GROUP", group)
    kernels = [f for f in lowered.module.functions.values() if isinstance(f, tirx.PrimFunc)]
    executable = generate_in_groups(lowered.module, lowered.target)
    assert len(parts(executable, "static_library")) == -(-len(kernels) // group) - 1 > 0
    assert len(parts(executable, "llvm")) == 1
    found = run(executable, lowered, tmp_path)
    expected = run(generate_code(lowered.module, lowered.target), lowered, tmp_path)
    np.testing.assert_array_equal(found, expected)


def test_few_kernels_stay_in_one_module(lowered):
    executable = generate_in_groups(lowered.module, lowered.target)
    assert not parts(executable, "static_library")


def test_private_functions_stay_with_those_that_call_them(lowered, monkeypatch):
    monkeypatch.setattr(kernel_groups, "GROUP", 1)
    named = [f for f in lowered.module.functions.values() if isinstance(f, tirx.PrimFunc)]
    private = named[0].without_attr("global_symbol") if named[0].attrs else named[0]
    module = tvm.IRModule({**dict(lowered.module.functions), tvm.ir.GlobalVar("own"): private})
    assert kernel_groups._in_groups(module, lowered.target) is module


def test_object_code_needs_room_for_files(lowered, monkeypatch):
    monkeypatch.setattr(kernel_groups, "GROUP", 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(LayoutselError, match="cannot link a shared library: File too large"):
            generate_in_groups(lowered.module, lowered.target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_scipy_is_imported_by_the_solver_that_needs_it():
    """It takes some 40 MB, and dynamic programming solves most models."""
    code = (
        "import sys, layoutsel.api, tvm_passes.onednn.legality; assert 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
