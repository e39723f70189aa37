"""Sums, means and variances on every unit, against float64: in half precision, and far from zero."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from on_units import HALF, UNITS, decisions_for, model, run
from onnx import helper

from layoutsel.model import import_model
from tests.reference import relative_error
from tvm_passes.decision import Decision
from tvm_passes.onednn import plugin as onednn
from tvm_passes.partition import PartitionSubgraphs

RNG = np.random.default_rng(0)
EPSILON = 1e-5
AXES = np.array([2, 3])


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def standardized(x, axes, epsilon=EPSILON):
    away = x - x.mean(axis=axes, keepdims=True)
    return away / np.sqrt((away**2).mean(axis=axes, keepdims=True) + epsilon)


def softmax(x):
    grown = np.exp(x - x.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)


IMAGE = (RNG.standard_normal((1, 16, 40, 40)) * 4 + 60).astype("float16")
LOUD = (RNG.standard_normal((1, 16, 16, 16)) * 900).astype("float16")
ROWS = (RNG.standard_normal((1, 8, 96)) * 900).astype("float16")
SIGNS = np.where(np.arange(4096) % 2, -1, 1).astype("float16")
ONES = {n: np.ones(n, "float16") for n in (16, 96)}
ZEROS = {n: np.zeros(n, "float16") for n in (16, 96)}

HALVES = {
    # Of 1600 values of 60: their sum is no float16.
    "global average": (
        [node("GlobalAveragePool", "x", "y")],
        IMAGE,
        {},
        lambda x: x.mean(axis=(2, 3), keepdims=True),
    ),
    "mean": (
        [node("ReduceMean", "x axes", "y", keepdims=1)],
        IMAGE,
        {"axes": AXES},
        lambda x: x.mean(axis=(2, 3), keepdims=True),
    ),
    "average pool": (
        [node("AveragePool", "x", "y", kernel_shape=[40, 40])],
        IMAGE,
        {},
        lambda x: x.mean(axis=(2, 3), keepdims=True),
    ),
    "sum, then a division": (
        [node("ReduceSum", "x axes", "s", keepdims=1), node("Div", "s count", "y")],
        IMAGE,
        {"axes": AXES, "count": np.float16(1600)},
        lambda x: x.mean(axis=(2, 3), keepdims=True),
    ),
    "squeeze and excite": (
        [
            node("GlobalAveragePool", "x", "m"),
            node("Mul", "m small", "s"),
            node("Sigmoid", "s", "g"),
            node("Mul", "x g", "y"),
        ],
        IMAGE,
        {"small": np.float16(0.01)},
        lambda x: x / (1 + np.exp(-0.01 * x.mean(axis=(2, 3), keepdims=True))),
    ),
    # Of squares of 900: they are no float16.
    "instance norm": (
        [node("InstanceNormalization", "x one zero", "y", epsilon=EPSILON)],
        LOUD,
        {"one": ONES[16], "zero": ZEROS[16]},
        lambda x: standardized(x, (2, 3)),
    ),
    "layer norm": (
        [node("LayerNormalization", "x one zero", "y", axis=-1)],
        ROWS,
        {"one": ONES[96], "zero": ZEROS[96]},
        lambda x: standardized(x, -1),
    ),
    "squares, spelled out": (
        [
            node("Mul", "x x", "s"),
            node("ReduceMean", "s axis", "m", keepdims=1),
            node("Sqrt", "m", "r"),
            node("Div", "x r", "y"),
        ],
        ROWS,
        {"axis": np.array([-1])},
        lambda x: x / np.sqrt((x * x).mean(axis=-1, keepdims=True)),
    ),
    "length": (
        [node("ReduceL2", "x axis", "r", keepdims=1), node("Div", "x r", "y")],
        ROWS,
        {"axis": np.array([-1])},
        lambda x: x / np.sqrt((x * x).sum(axis=-1, keepdims=True)),
    ),
    "sum of squares": (
        [
            node("ReduceSumSquare", "x axis", "r", keepdims=1),
            node("Sqrt", "r", "s"),
            node("Div", "x s", "y"),
        ],
        ROWS,
        {"axis": np.array([-1])},
        lambda x: x / np.sqrt((x * x).sum(axis=-1, keepdims=True)),
    ),
    "softmax": (
        [node("Softmax", "x", "y", axis=-1)],
        (ROWS[..., :8] / 400).astype("float16"),
        {},
        softmax,
    ),
    # Partial sums of 50000 and more, which cancel.
    "product": (
        [node("MatMul", "x w", "y")],
        np.full((2, 4096), 200, "float16") + SIGNS,
        {"w": np.repeat(np.where(np.arange(4096) < 2048, 1, -1), 16).reshape(4096, 16)},
        lambda x: np.repeat(x @ np.where(np.arange(4096) < 2048, 1, -1)[:, None], 16, axis=1) + 0.0,
    ),
    "convolution": (
        [node("Conv", "x w", "c"), node("Add", "c b", "y")],
        np.full((1, 1024, 2, 2), 100, "float16"),
        {
            "w": np.repeat(np.where(np.arange(1024) < 1000, 1, -1), 16).reshape(1024, 16).T
            .reshape(16, 1024, 1, 1),
            "b": np.full((1, 16, 1, 1), -60000.0),
        },
        lambda x: np.full((1, 16, 2, 2), 100.0 * 976 - 60000),
    ),
}  # fmt: skip
"""By name: nodes from x to y, the input, constants, and the result in float64."""


@cache
def half_results(unit):
    """Results of all of them; one build for each unit."""
    nodes, inputs, constants = [], {}, {}
    for place, (parts, value, values, _) in enumerate(HALVES.values()):

        def own(name, place=place):
            return f"{name}{place}"

        inputs[own("x")] = value
        for name, array in values.items():
            dtype = "int64" if name.startswith("ax") else "float16"
            constants[own(name)] = np.asarray(array).astype(dtype)
        for part in parts:
            copy = type(part)()
            copy.CopyFrom(part)
            copy.input[:] = map(own, part.input)
            copy.output[:] = map(own, part.output)
            nodes.append(copy)
    outputs = [f"y{place}" for place in range(len(HALVES))]
    made = model(nodes, inputs, outputs, constants, elem=HALF)
    return dict(zip(HALVES, run(made, inputs, Decision(unit=unit)), strict=True))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", HALVES)
def test_half_precision_is_summed_in_float32(name, unit):
    _, value, _, reference = HALVES[name]
    got, want = half_results(unit)[name], reference(value.astype("float64"))
    assert got.dtype == np.float16
    assert np.isfinite(got).all()
    assert relative_error(got, want) < 1e-3


FAR = (RNG.standard_normal((2, 16, 12, 12)) + 1e4).astype("float32")
FAR_ROWS = (RNG.standard_normal((4, 8, 96)) + 1e4).astype("float32")
SCALES = {"one": np.ones(16, "float32"), "zero": np.zeros(16, "float32")}
WIDE = {"one": np.ones(96, "float32"), "zero": np.zeros(96, "float32")}


def spelled_variance(axes):
    """Nodes of ``mean(x²) - mean(x)²``, and of a normalisation by it."""
    return (
        [
            node("ReduceMean", "x axes", "m", keepdims=1),
            node("Mul", "x x", "xx"),
            node("ReduceMean", "xx axes", "e", keepdims=1),
            node("Mul", "m m", "mm"),
            node("Sub", "e mm", "v"),
            node("Sub", "x m", "c"),
            node("Add", "v eps", "w"),
            node("Sqrt", "w", "d"),
            node("Div", "c d", "y"),
        ],
        {"axes": np.array(axes), "eps": np.float32(EPSILON)},
    )


NORMS = {
    "mean and variance": (
        [node("MeanVarianceNormalization", "x", "y")],
        FAR,
        {},
        lambda x: standardized(x, (0, 2, 3), 0),
    ),
    "mean and variance of images": (
        [node("MeanVarianceNormalization", "x", "y", axes=[2, 3])],
        FAR,
        {},
        lambda x: standardized(x, (2, 3), 0),
    ),
    "instance": (
        [node("InstanceNormalization", "x one zero", "y", epsilon=EPSILON)],
        FAR,
        SCALES,
        lambda x: standardized(x, (2, 3)),
    ),
    "layer": (
        [node("LayerNormalization", "x one zero", "y", axis=-1)],
        FAR_ROWS,
        WIDE,
        lambda x: standardized(x, -1),
    ),
    "layer over three axes": (
        [node("LayerNormalization", "x o z", "y", axis=1)],
        FAR,
        {n: np.full((16, 12, 12), v, "float32") for n, v in (("o", 1), ("z", 0))},
        lambda x: standardized(x, (1, 2, 3)),
    ),
    "group": (
        [node("GroupNormalization", "x one zero", "y", num_groups=4, epsilon=EPSILON)],
        FAR,
        {n: np.full(4, v, "float32") for n, v in (("one", 1), ("zero", 0))},
        lambda x: standardized(x.reshape(2, 4, 4, 12, 12), (2, 3, 4)).reshape(x.shape),
    ),
    "spelled out": (*spelled_variance([2, 3])[:1], FAR, spelled_variance([2, 3])[1],
                    lambda x: standardized(x, (2, 3))),
    "spelled out over channels": (*spelled_variance([1])[:1], FAR, spelled_variance([1])[1],
                                  lambda x: standardized(x, 1)),
}  # fmt: skip

EXACT = 1e-6
"""Relative error with the mean of differences; 1e-3 where a mean of 1e4 is rounded to its last place."""


@cache
def norm_results(unit):
    """Each by itself: group normalisation is of another operator set."""
    results = {}
    for name, (nodes, value, constants, _) in NORMS.items():
        made = model(nodes, {"x": value}, ["y"], constants, opset=18)
        wanted = Decision(unit=unit)
        (results[name],) = run(made, {"x": value}, wanted, may_decline=unit == "onednn")
    return results


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", NORMS)
def test_a_mean_far_above_the_deviation_does_not_cancel(name, unit):
    _, value, _, reference = NORMS[name]
    want = reference(value.astype("float64"))
    assert relative_error(norm_results(unit)[name], want) < EXACT


@pytest.mark.skipif(onednn.available() is not None, reason="no oneDNN plugin")
@pytest.mark.parametrize("name", [name for name in NORMS if not name.startswith("spelled")])
def test_onednn_declines_norms(name):
    """It rounds the mean; the unit cpu is as fast."""
    nodes, value, constants, _ = NORMS[name]
    made = model(nodes, {"x": value}, ["y"], constants, opset=18)
    module = PartitionSubgraphs()(import_model(made).module)
    _, declines = decisions_for(module, Decision(unit="onednn"))
    assert any("got a mean that oneDNN rounds" in decline for decline in declines)
