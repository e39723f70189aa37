"""What units offer in each mode of precision, and which sub-graphs stay f32."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from layoutsel.compile.legality import check_legal
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.core.precision import MODES
from layoutsel.units.base import select, units
from layoutsel.units.sensitive import sensitive_subgraphs
from tvm_passes.cpu.host import has_bf16, host_target
from tvm_passes.decision import Decision
from tvm_passes.errors import IllegalDecision, LayoutselError, UnitUnavailable

SHAPE = (1, 32, 8, 8)
needs_bf16 = pytest.mark.skipif(
    not has_bf16(host_target()), reason="the CPU has no AVX512_BF16: the unit declines bf16"
)


def network() -> onnx.ModelProto:
    """Convolution, pooling, convolution, pooling and softmax, and a head of its own behind the first pooling."""
    generator = np.random.default_rng(0)

    def weights(name: str) -> TensorProto:
        values = generator.standard_normal((32, 32, 1, 1)).astype(np.float32) / 6
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], name="first"),
        helper.make_node(
            "MaxPool", ["c0"], ["p0"], name="pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Conv", ["p0", "w1"], ["c1"], name="last"),
        helper.make_node("GlobalAveragePool", ["c1"], ["g"], name="average"),
        helper.make_node("Softmax", ["g"], ["y"], name="softmax", axis=1),
        helper.make_node("Conv", ["p0", "w2"], ["z"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 32, 1, 1)),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 32, 4, 4)),
        ],
        [weights("w0"), weights("w1"), weights("w2")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def opened(mode: str, **options) -> Session:
    return Session.open(network(), units=("cpu",), threads=1, precision=mode, **options)


def by_name(session: Session) -> dict[str, str]:
    """Id of the sub-graph of each ONNX node."""
    return {name: subgraph.id for subgraph in session.graph.subgraphs for name in subgraph.names}


def precisions(session: Session) -> dict[str, set[str]]:
    """Precisions of the candidates of each ONNX node's sub-graph."""
    offers = Offers.of(session)
    return {
        name: {decision.precision for decision in offers.candidates[id_].decisions}
        for name, id_ in by_name(session).items()
    }


def test_heads_and_softmaxes_are_sensitive():
    session = opened("f32")
    ids = by_name(session)
    found = sensitive_subgraphs(session.graph)
    named = {name for name, id_ in ids.items() if id_ in found}
    assert named >= {"last", "average", "softmax", "head"}
    assert not {"first", "pool"} & named
    assert found[ids["head"]].felt == found[ids["average"]].felt == 1.0
    assert found[ids["last"]].felt == 0.25, "averaged over 4×4 pixels"
    assert found[ids["softmax"]].felt == math.inf


def test_f32_is_as_if_there_were_nothing_else():
    session = opened("f32")
    offers = Offers.of(session)
    assert {p for found in precisions(session).values() for p in found} == {"f32"}
    assert not any(
        Decision.parse(decline.decision).precision != "f32"
        for found in offers.candidates.values()
        for decline in found.declines
    )
    assert "amx" not in select(mode=MODES["f32"])


@needs_bf16
@pytest.mark.parametrize(
    ("mode", "offered", "behind_the_last_product"),
    [
        ("bf16", {"f32", "bf16"}, {"f32", "split-bf16"}),
        ("f32-grade", {"f32", "split-bf16"}, {"f32"}),
        ("auto", {"f32", "bf16", "split-bf16"}, {"f32", "bf16", "split-bf16"}),
    ],
)
def test_each_mode_offers_its_precisions(mode, offered, behind_the_last_product):
    session = opened(mode)
    offers = Offers.of(session)
    found = precisions(session)
    assert found["pool"] == offered
    assert found["average"] == behind_the_last_product
    layouts = {
        decision.layout
        for decision in offers.candidates[by_name(session)["pool"]].decisions
        if decision.precision != "f32"
    }
    assert layouts == {"NCHW", "NHWC", "NCHW32c"}


@needs_bf16
@pytest.mark.parametrize(
    ("name", "reason", "expected"),
    [
        ("softmax", "nn.softmax", "f32"),
        ("average", "the last product before an output", "f32 or split-bf16"),
    ],
)
def test_sensitive_sub_graphs_say_what_they_may_have(name, reason, expected):
    session = Session.open(network(), units=("onednn",), threads=1, precision="bf16")
    declines = Offers.of(session).candidates[by_name(session)[name]].declines
    texts = {str(d).partition(": ")[2] for d in declines if ":bf16" in d.decision}
    assert texts == {
        f"got a sensitive sub-graph ({reason}); expected precision {expected}: only --precision auto weighs others"
    }


def test_a_decision_outside_of_the_mode_is_illegal():
    session = opened("f32")
    decisions = {subgraph.id: Decision(unit="cpu") for subgraph in session.graph.subgraphs}
    pool = by_name(session)["pool"]
    decisions[pool] = Decision.parse("cpu:NHWC:bf16")
    with pytest.raises(
        IllegalDecision, match="got precision bf16; expected one of f32, which precision 'f32'"
    ):
        check_legal(session, decisions)


def test_a_unit_without_the_precision_is_refused_by_name():
    if units()["amx"].unavailable():
        pytest.skip("the CPU has no AMX")
    with pytest.raises(UnitUnavailable, match="unit 'amx' computes in bf16 and split-bf16 alone"):
        select(("cpu", "amx"))
    assert list(select(("amx",), MODES["bf16"])) == ["amx"]


def test_bad_options():
    with pytest.raises(LayoutselError, match="unknown precision 'int8'"):
        opened("int8")
    with pytest.raises(LayoutselError, match="expected it with 'auto' alone"):
        opened("bf16", max_rel_error=1e-3)
