"""Models cut into stages at every place: the results stay, in any layout and storage of the tensors that cross."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper
from small_models import IMAGE, image, model_of

import layoutsel
import layoutsel.device
from layoutsel.planning.values import WITHIN_ERROR
from layoutsel.runtime.arrays import to_tensor
from tests.runtime.branching import expected
from tvm_passes.cpu.host import has_bf16, host_target
from tvm_passes.decision import Decision
from tvm_passes.onednn import available

needs_plugin = pytest.mark.skipif(available() is not None, reason=str(available()))
needs_bf16 = pytest.mark.skipif(not has_bf16(host_target()), reason="no AVX512_BF16")
LIMIT_S = 30
NHWC, PACKED = Decision(unit="cpu", layout="NHWC"), Decision(unit="cpu", layout="NCHW8c")
NARROW = Decision(unit="onednn", layout="NHWC", precision="bf16")
HALVES = Decision(unit="onednn", layout="NHWC", precision="split-bf16")


def residual():
    """Three convolutions; the first one's result is added to the last one's, and returned as well."""
    generator = np.random.default_rng(0)
    weights = {
        f"w{index}": (generator.standard_normal((8, 8, 3, 3)) / 8).astype(np.float32)
        for index in range(3)
    }
    nodes, source = [], "x"
    for index in range(3):
        nodes.append(
            helper.make_node("Conv", [source, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Tanh", [f"c{index}"], [f"t{index}"]))
        source = f"t{index}"
    nodes.append(helper.make_node("Add", [source, "t0"], ["y"]))
    return model_of(nodes, {"x": IMAGE}, {"y": IMAGE, "t0": IMAGE}, weights)


@pytest.fixture(scope="module")
def plan():
    return layoutsel.plan(residual(), units=["cpu"], cost="roofline", threads=1)


def in_stages(plan, size: int, decisions=()):
    """`plan` in stages of `size` sub-graphs, and other decisions for its convolutions."""
    ids = list(plan.decisions)
    parts = {f"p{at}": ids[at : at + size] for at in range(0, len(ids), size)}
    subgraphs = []
    for subgraph in plan.subgraphs:
        is_conv = any("conv2d" in operator for operator in subgraph.operators)
        chosen = decisions[len(subgraphs) % len(decisions)] if decisions and is_conv else None
        subgraphs.append(replace(subgraph, decision=chosen or subgraph.decision))
    return replace(plan, subgraphs=tuple(subgraphs)).in_stages(parts)


def run_all(model, x):
    """The model's outputs, stage by stage on a worker."""
    tensors = {"input.0": x}
    with model.worker() as worker:
        for stage in model.stages:
            tensors.update(worker.run(stage.name, tensors).result(LIMIT_S))
    return [tensors["output.0"], tensors["output.1"]]


@pytest.mark.parametrize(
    ("size", "decisions", "tolerance"),
    [
        (1, (), 1e-4),
        (2, (NHWC, PACKED), 1e-4),
        (1, (PACKED,), 1e-4),
        pytest.param(1, (NARROW, NHWC), 0.05, marks=[needs_plugin, needs_bf16]),
        pytest.param(2, (NARROW,), 0.05, marks=[needs_plugin, needs_bf16]),
        pytest.param(2, (HALVES, NHWC), 1e-3, marks=[needs_plugin, needs_bf16]),
    ],
)
def test_the_results_stay(plan, size, decisions, tolerance):
    precision = "auto" if tolerance > 1e-4 else "f32"
    staged = in_stages(plan, size, decisions)
    if precision == "auto":
        budget = {"max_rel_error": tolerance, "objective": WITHIN_ERROR}
        staged = replace(staged, precision=precision, **budget)
    units = ["cpu", "onednn"] if available() is None else ["cpu"]
    model = layoutsel.compile_plan(residual(), staged, units=units)
    assert len(model.stages) == len(staged.stages) > 1
    for stage, planned in zip(model.stages, staged.stages, strict=True):
        assert {one.name for one in stage.inputs} == set(planned.inputs)
        assert {one.name for one in stage.outputs} == set(planned.outputs)
    crossing = {(len(one.shape), one.dtype) for stage in model.stages for one in stage.outputs}
    assert ((4, "bfloat16") in crossing) == (NARROW in decisions)
    assert ((5, "float32") in crossing) == (PACKED in decisions)
    want = expected(residual(), image())
    for found in (model(image()), run_all(model, image())):
        for got, one in zip(found, want, strict=True):
            assert np.abs(got - one).max() <= tolerance * np.abs(one).max()


def test_deployed_without_numpy_and_traced(plan, tmp_path):
    model = layoutsel.compile_plan(residual(), in_stages(plan, 2))
    path = model.save(tmp_path / "staged.so")
    x = image()
    want = model(x)
    deployed = layoutsel.device.load(path)
    tensors = {"input.0": to_tensor(x)}
    with deployed.worker() as worker:
        for stage in deployed.stages:
            given = [tensors[one.name] for one in stage.inputs]
            results = worker.start(stage.name, given).result(LIMIT_S)
            tensors.update(zip([one.name for one in stage.outputs], results, strict=True))
    for found in (deployed(x), [tensors["output.0"], tensors["output.1"]]):
        for got, one in zip(found, want, strict=True):
            np.testing.assert_array_equal(np.from_dlpack(got), one)
    events = model.trace([x])
    traced = {event.name for event in events if event.kind == "subgraph"}
    assert traced == set(plan.decisions)
