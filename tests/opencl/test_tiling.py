"""The tiling for tensor cores with every fragment in a work-item's own memory: what it computes, run on any device."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tvm
from on_opencl import needs_device
from tvm import s_tir

from tests.bodies import BODIES
from tests.cpu.support import TARGET, model
from tests.reference import relative_error
from tvm_passes.decided_functions import decide_function
from tvm_passes.decision import Decision
from tvm_passes.gpu import tensor_cores, wmma
from tvm_passes.gpu.implicit_gemm import ImplicitGemm
from tvm_passes.gpu.target import device_target
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import subgraph_id
from tvm_passes.tunable import tunable

OWN, SHARED, FULL = "local", "shared", "float32"


@pytest.fixture
def rule(monkeypatch):
    """The rule with float32 for bfloat16, and each intrinsic's meaning as its code: no device needs tensor cores."""
    load = (((SHARED, FULL), (OWN, FULL)), wmma._copies, wmma._copies)
    sums = ((OWN, FULL),)
    meanings = {
        "load_a": load,
        "load_b": load,
        "multiply": (((OWN, FULL),) * 3, wmma._multiplies, wmma._multiplies),
        "fill": (sums, wmma._zeroes, wmma._zeroes),
        "store": ((*sums, (SHARED, FULL)), wmma._copies, wmma._copies),
    }

    @cache
    def intrinsic(name):
        matrices, meaning, code = meanings[name]
        functions = [
            wmma._function(matrices, f, has_strides=s) for f, s in ((meaning, 0), (code, 1))
        ]
        s_tir.TensorIntrin.register(f"test.{name}", *functions, override=True)
        return f"test.{name}"

    for name in ("cache_read", "cache_write"):
        plain = getattr(s_tir.Schedule, name)

        def cached(self, block, index, scope, *rest, plain=plain):
            return plain(self, block, index, OWN if scope.startswith("wmma") else scope, *rest)

        monkeypatch.setattr(s_tir.Schedule, name, cached)
    monkeypatch.setattr(tensor_cores, "intrinsic", intrinsic)
    monkeypatch.setattr(tensor_cores, "FACTOR", FULL)
    monkeypatch.setattr(tensor_cores, "SHARED", SHARED)
    return tensor_cores.TensorCores()


@needs_device
@pytest.mark.parametrize(
    ("name", "layout"),
    [("large", "NCHW"), ("large", "NHWC"), ("large", "NCHW4c"), ("stem", "NHWC")],
)
def test_it_computes_the_same(rule, name, layout):
    body, shapes = BODIES[name]
    functions = PartitionSubgraphs()(model(body, *shapes)).functions.values()
    (function,) = [f for f in functions if subgraph_id(f)]
    decision = Decision(unit="opencl", layout=layout)
    code = tunable(decide_function(function, decision)).module["main"]
    gpu = tvm.target.Target({"kind": "cuda", "arch": "sm_80"})
    scheduled = ImplicitGemm(rule).apply(code, gpu, False)
    assert scheduled is not None
    target = device_target("opencl", TARGET)
    tiled = tvm.tirx.build(scheduled.mod, target=target)
    plain = tvm.tirx.build(tvm.IRModule({"main": code}), target="llvm")
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal([int(n) for n in p.shape]).astype("float32") for p in code.params
    ]
    there = [tvm.runtime.tensor(array, tvm.opencl(0)) for array in arrays]
    here = [tvm.runtime.tensor(array) for array in arrays]
    tiled["main"](*there)
    plain["main"](*here)
    assert relative_error(there[-1].numpy(), here[-1].numpy()) < 1e-6
