"""A network of two branches, and its plan in three stages: a trunk and each branch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from small_models import IMAGE, image, model_of

import layoutsel
from layoutsel.planning.plan import Plan

BRANCHES = ("a", "b")


def network(depth: int = 2) -> onnx.ModelProto:
    """`depth` convolutions with their ReLUs, whose result two such branches read."""
    generator = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def chain(name: str, source: str) -> str:
        for index in range(depth):
            weight = f"w_{name}{index}"
            weights[weight] = (generator.standard_normal((8, 8, 3, 3)) / 8).astype(np.float32)
            conv, relu = f"{name}_conv{index}", f"{name}{index}"
            nodes.append(helper.make_node("Conv", [source, weight], [conv], pads=[1, 1, 1, 1]))
            nodes.append(helper.make_node("Relu", [conv], [relu]))
            source = relu
        return source

    trunk = chain("t", "x")
    results = [chain(name, trunk) for name in BRANCHES]
    return model_of(nodes, {"x": IMAGE}, dict.fromkeys(results, IMAGE), weights)


def expected(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """Results of ONNX Runtime."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})


def planned(model: onnx.ModelProto, units: Sequence[str]) -> Plan:
    """A plan of three stages."""
    plan = layoutsel.plan(model, units=units, cost="roofline", threads=1)
    ends = [result.split(".")[0] for result in plan.results]
    held: dict[str, list[str]] = {"trunk": [], **{name: [] for name in BRANCHES}}
    reads = {id_: {tensor.split(".")[0] for tensor in read} for id_, read in plan.reads.items()}

    def ancestors(id_: str) -> set[str]:
        return {id_}.union(*(ancestors(source) for source in reads.get(id_, ()) if source in reads))

    first, second = (ancestors(end) for end in ends)
    for id_ in reads:
        both = id_ in first and id_ in second
        held["trunk" if both else "a" if id_ in first else "b"].append(id_)
    return plan.in_stages(held, {"trunk": "cpu0", "a": "cpu0", "b": "cpu1"})


__all__ = ["BRANCHES", "expected", "image", "network", "planned"]
