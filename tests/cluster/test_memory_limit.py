"""A model larger than a node's memory runs on two nodes, in control groups that hold no more."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from small_models import model_of

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]
NODES = pytest.importorskip("cluster.nodes", reason="the benches are not on the path")
MEMORIES = pytest.importorskip("cluster.memories", reason="the benches are not on the path")
if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install 'layoutsel[cluster]'", allow_module_level=True)
if reason := NODES.why_not() or MEMORIES.why_not():
    pytest.skip(reason, allow_module_level=True)

LAYERS, WIDTH = 4, 4096
"""Layers of 64 MiB of weights each."""


def large_network():
    """Fully connected layers, each followed by Tanh."""
    generator = np.random.default_rng(0)
    weights, nodes, source = {}, [], "x"
    for index in range(LAYERS):
        weight = f"w{index}"
        weights[weight] = generator.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(64)
        nodes.append(helper.make_node("MatMul", [source, weight], [f"m{index}"]))
        source = f"t{index}" if index < LAYERS - 1 else "y"
        nodes.append(helper.make_node("Tanh", [f"m{index}"], [source]))
    return model_of(nodes, {"x": (1, WIDTH)}, {"y": (1, WIDTH)}, weights)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    from cluster.memory_limit import measure

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(NODES.__file__).parents[1])]))
        yield measure(large_network(), tmp_path_factory.mktemp("large"), 160e6)


def test_one_node_is_refused_with_the_missing_bytes(found):
    assert "MB missing on edge, which has 160 MB" in found["refusal"]


def test_two_nodes_give_the_right_results_within_their_limits(found):
    two = found["two"]
    assert two["requests"] > 0
    assert two["wrong"] == 0
    assert found["artifact_bytes"] > LAYERS * WIDTH * WIDTH * 4
    for name, node in two["nodes"].items():
        assert node["peak_bytes"] <= node["limit_bytes"], name
        # Room for the weights of three layers of four, at most.
        assert node["limit_bytes"] - node["own_bytes"] < 0.8 * found["artifact_bytes"], name


def test_one_node_lacks_memory_indeed(found):
    """It is killed, or reads weights from the file again and again; the other division does not."""
    assert found["one"].get("wrong", 0) == 0
    if "error" not in found["one"]:
        again = found["one"]["nodes"]["edge"]["taken_per_request_bytes"]
        assert again > 10e6
        assert found["two"]["nodes"]["edge"]["taken_per_request_bytes"] < again / 10
