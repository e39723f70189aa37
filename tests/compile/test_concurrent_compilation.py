"""Models that are compiled in several threads at once are right, and are compiled one after the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import layoutsel

MODELS = 3


def network(channels: int) -> onnx.ModelProto:
    """A few convolutions, each with a number of channels of its own."""
    rng = np.random.default_rng(channels)
    names = ["x", *(f"c{i}" for i in range(5)), "y"]
    weights = [
        numpy_helper.from_array(
            rng.standard_normal((channels, channels, 3, 3)).astype("float32") / channels, f"w{i}"
        )
        for i in range(6)
    ]
    nodes = [
        helper.make_node("Conv", [names[i], f"w{i}"], [names[i + 1]], pads=[1] * 4)
        for i in range(6)
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, channels, 6, 6]) for n in "xy")
    graph = helper.make_graph(nodes, f"net{channels}", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.nightly
@pytest.mark.parametrize("planned", [False, True], ids=["optimize", "compile_plan"])
def test_several_at_once(planned, tmp_path):
    """Verification compares every model with ONNX Runtime; sizes tell whose parts it was made of."""
    together = Barrier(MODELS)
    options = {"cost": "roofline", "threads": 1, "cache": tmp_path / "m.sqlite"}

    def compiled(index: int):
        together.wait()
        model = network(4 + index)
        if planned:
            return layoutsel.compile_plan(model, layoutsel.plan(model, **options))
        return layoutsel.optimize(model, verify_speed=False, **options)

    with ThreadPoolExecutor(MODELS) as pool:
        models = list(pool.map(compiled, range(MODELS)))
    for index, model in enumerate(models):
        assert model.inputs[0].shape == (1, 4 + index, 6, 6)
        assert all(check["rel_l2_err"] <= check["tolerance"] for check in model.checks)
