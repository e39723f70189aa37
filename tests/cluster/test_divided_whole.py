"""Distributions that were planned give the same results as the whole model, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from divided import PATIENT
from onnx import TensorProto, helper, numpy_helper

import layoutsel
from layoutsel import cluster
from layoutsel.cluster.node_queues import ClusterLimits
from layoutsel.cluster.topology import Header, Link, Node, Power, Topology
from layoutsel.runtime.samples import random_inputs

TARGETS = ("latency", "throughput", "memory")
NODES = ("n0", "n1", "n2")


def topology() -> Topology:
    """Three equal nodes, each joined with each by a fast link."""
    power = Power(idle=1, busy=5)
    pairs = [(one, other) for one in NODES for other in NODES if one < other]
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=1, origin="n0"),
        nodes=tuple(Node(id=node, threads=1, power_w=power) for node in NODES),
        links=tuple(Link(source=one, target=other, gbps=10.0, rtt_us=50.0) for one, other in pairs),
    )


def results_inside(path: Path) -> Path:
    """Write a chain of convolutions whose results, all but the first, are results of the network as well."""
    generator = np.random.default_rng(0)
    nodes, weights, outputs, read = [], [], [], "x"
    for number in range(6):
        values = generator.standard_normal((64, 64, 3, 3)).astype("float32") / 24
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        made = f"y{number}"
        nodes.append(
            helper.make_node("Conv", [read, f"w{number}"], [made], name=made, pads=[1, 1, 1, 1])
        )
        outputs += [made] if number else []
        read = made
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 64, 14, 14))
        for name in ("x", *outputs)
    }
    graph = helper.make_graph(
        nodes, "inside", [infos["x"]], [infos[one] for one in outputs], weights
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize(
    "model",
    [
        "results inside",
        pytest.param("light:inception_v1", marks=pytest.mark.nightly),
        pytest.param("zoo:bert_mini", marks=pytest.mark.nightly),
        pytest.param("zoo:ssdlite_mobilenet", marks=pytest.mark.nightly),
        pytest.param("zoo:unet_resnet34", marks=pytest.mark.nightly),
    ],
)
def test_parts_on_nodes_give_the_results_of_the_whole(model, tmp_path):
    if model == "results inside":
        model = results_inside(tmp_path / "inside.onnx")
    planned = cluster.distribute(model, topology(), targets=TARGETS, cost="roofline", spares=False)
    (plan,) = planned.plans.values()
    built = layoutsel.compile_plan(model, plan, verify=False)
    artifact = built.save(tmp_path / "network.so")
    inputs = random_inputs(built.inputs)
    expected = built.run_all(inputs)[: len(built.outputs)]
    assert len({segment.node for segment in planned["memory"].routes[0].segments}) > 1
    for target in TARGETS:
        artifacts = dict.fromkeys(planned.plans, artifact)
        limits = ClusterLimits(**PATIENT)
        with cluster.deploy(planned, target, artifacts, limits=limits) as deployed:
            for _ in range(len(planned[target].routes)):
                found = deployed(*inputs)
                found = found if isinstance(found, tuple) else (found,)
                for got, want in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(got, want)
