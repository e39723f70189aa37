"""Kernels are blocked for the threads that a session has, not for the cores of the machine that compiles."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
import tvm
import tvm_ffi
from onnx import TensorProto, helper, numpy_helper
from tvm.target import Target

from layoutsel.building import measure
from layoutsel.compile.measuring import request_for
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from tvm_passes import onednn
from tvm_passes.cpu import host_target
from tvm_passes.cpu.host import num_cores
from tvm_passes.decision import Decision
from tvm_passes.onednn import lower as onednn_lower
from tvm_passes.onednn import scope
from tvm_passes.onednn.plugin import get_num_threads, limited_to
from tvm_passes.targets import CrossTarget, for_threads, targeting

DECISIONS = {
    "direct convolution": ("Conv", "cpu:NCHW16c"),
    "Winograd": ("Conv", "cpu:NCHW16c:f32:winograd4"),
    "product": ("MatMul", "cpu:NCHW"),
    "pooling": ("MaxPool", "cpu:NCHW16c"),
}


def network(operator: str) -> onnx.ModelProto:
    """One operator on an image or a matrix."""
    generator = np.random.default_rng(0)
    shape, weights, attributes = {
        "Conv": ((1, 16, 28, 28), (32, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
        "MatMul": ((24, 64), (64, 96), {}),
        "MaxPool": ((1, 32, 28, 28), None, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    }[operator]
    names = ["x"] if weights is None else ["x", "w"]
    initializers = []
    if weights is not None:
        values = generator.standard_normal(weights).astype("float32")
        initializers.append(numpy_helper.from_array(values, "w"))
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def code(operator: str, decision: str, threads: int, **options) -> tvm.IRModule:
    """What a session with so many threads generates."""
    session = Session.open(network(operator), units=["cpu"], threads=threads, **options)
    ids = [subgraph.id for subgraph in session.graph.subgraphs]
    lowered = session.lower(dict.fromkeys(ids, Decision.parse(decision)))
    assert {str(made) for made in lowered.decisions.values()} == {str(Decision.parse(decision))}
    return lowered.module


def equal(one: tvm.IRModule, other: tvm.IRModule) -> bool:
    return tvm_ffi.structural_equal(one, other)


@pytest.mark.parametrize("kernel", DECISIONS)
def test_code_depends_on_the_threads(kernel, monkeypatch):
    on_many = {}
    for cores in (1, 2, 16):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _process, n=cores: set(range(n)))
        on_many[cores] = {threads: code(*DECISIONS[kernel], threads) for threads in (1, 8)}
        assert not equal(on_many[cores][1], on_many[cores][8])
    for made in on_many.values():
        assert all(equal(made[threads], on_many[1][threads]) for threads in made)


def test_of_another_machine():
    host = Target({"kind": "llvm", "mcpu": "skylake-avx512", "num-cores": 8})
    machine = CrossTarget(host=host)
    made = {n: code("Conv", "cpu:NCHW16c", n, cross_target=machine) for n in (1, 8)}
    assert not equal(made[1], made[8])
    with targeting(machine):
        assert num_cores(host_target()) == 8
        with for_threads(3):
            assert num_cores(host_target()) == 3


def test_a_target_of_the_user_keeps_its_cores():
    with for_threads(3):
        assert num_cores(host_target("llvm")) == 3
        assert num_cores(host_target({"kind": "llvm", "num-cores": 5})) == 5


@pytest.mark.parametrize("threads", [1, 6])
def test_what_is_measured_is_what_is_built(threads, monkeypatch):
    """A measuring process builds a candidate as the session does."""
    session = Session.open(network("Conv"), units=["cpu"], threads=threads)
    (subgraph,) = session.graph.subgraphs
    targets = []

    def build(_request, target):
        targets.append(target)
        return ()

    monkeypatch.setattr(measure, "build_request", build)
    monkeypatch.setattr(measure, "reference_kernel", lambda: type("Built", (), {"ready": None}))
    monkeypatch.setattr(measure, "places_of", lambda _request: ("llvm", "llvm"))
    monkeypatch.setattr(measure, "time_copy", lambda *_: None)
    monkeypatch.setattr(measure, "set_threads", lambda _count: None)
    request = request_for(Offers.of(session), subgraph, Decision.parse("cpu:NCHW16c"))
    measure.run_request({**request.payload, "shape": (1,)})
    assert [num_cores(target) for target in targets] == [threads]


@pytest.mark.skipif(onednn.available() is not None, reason=str(onednn.available()))
class TestOnednn:
    def test_weights_are_packed_for_the_threads(self, monkeypatch):
        packed = onednn_lower._packed
        counts = []

        def counted(*arguments):
            counts.append(get_num_threads())
            return packed(*arguments)

        monkeypatch.setattr(onednn_lower, "_packed", counted)
        before = get_num_threads()
        session = Session.open(network("Conv"), units=["onednn"], threads=7)
        (subgraph,) = session.graph.subgraphs
        session.lower({subgraph.id: Decision.parse("onednn:NHWC")})
        assert counts == [7]
        assert get_num_threads() == before

    def test_implementations_are_those_for_the_threads(self, monkeypatch):
        counts = []

        def told(_name):
            counts.append(get_num_threads())
            return lambda _text: ["jit"]

        monkeypatch.setattr(scope, "plugin_function", told)
        for threads in (5, 7):
            with for_threads(threads):
                assert scope.implementations("no graph") == ("jit",)
        with limited_to(5):
            assert scope.implementations("no graph") == ("jit",)
        assert counts == [5, 7]
