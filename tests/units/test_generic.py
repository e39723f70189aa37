"""Sub-graphs that only generic code can run are named, with their share of the work and the reason."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from survey import rows
from survey_networks import NETWORKS, network

from layoutsel.cli.inspect_model import describe
from layoutsel.compile.generic import NOTABLE, announce_generic, generic_subgraphs
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session


def upsampled_volumes() -> onnx.ModelProto:
    """Two transposed convolutions over volumes, for which the unit `cpu` has no kernel."""
    weights = np.random.default_rng(0).standard_normal((4, 4, 2, 2, 2)).astype("float32")
    nodes = [
        helper.make_node("ConvTranspose", [source, "w"], [result], strides=[2, 2, 2])
        for source, result in (("x", "h"), ("h", "y"))
    ]
    values = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, size, size, size])
        for name, size in (("x", 2), ("y", 8))
    }
    graph = helper.make_graph(
        nodes, "volumes", [values["x"]], [values["y"]], [numpy_helper.from_array(weights, "w")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("name", NETWORKS)
def test_no_notable_work_is_left_to_generic_code(name):
    for row in rows(f"net:{name}", ("cpu", "onednn")):
        assert row["only_generic_share"] <= NOTABLE, row


def test_generic_code_is_announced(caplog):
    session = Session.open(upsampled_volumes(), units=("cpu",))
    offers = Offers.of(session)
    found = [generic for generic in generic_subgraphs(offers) if generic.share > NOTABLE]
    assert [generic.reasons[0].operator for generic in found] == ["nn.conv3d_transpose"] * 2
    with caplog.at_level(logging.WARNING):
        announce_generic(offers)
    (record,) = caplog.records
    for part in (found[0].reasons[0].subgraph, "nn.conv3d_transpose", "% of the FLOPs", "expected"):
        assert part in record.message
    report = describe(offers)
    told = [row["units"]["cpu"]["generic"] for row in report["subgraphs"]]
    assert sum(map(bool, told)) >= 2


def test_kernels_are_not_announced(caplog):
    session = Session.open(network("squeeze_excite"), units=("cpu",))
    with caplog.at_level(logging.WARNING):
        announce_generic(Offers.of(session))
    assert not caplog.records
