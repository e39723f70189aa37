"""What is no number, and what is infinite: one table for every unit, and what ONNX Runtime gives.

The rule is that of :mod:`layoutsel.units.base`. A row holds the results for the inputs in :data:`GIVEN`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from on_units import UNITS, decisions_for, model, run
from onnx import helper

from layoutsel.model import import_model
from tests.reference import run_onnx
from tvm_passes.decision import Decision
from tvm_passes.onednn import plugin as onednn
from tvm_passes.partition import PartitionSubgraphs

NAN, INF = math.nan, math.inf
LOWEST = float(np.finfo("float32").min)
GIVEN = (NAN, INF, -INF, 2.0, -2.0, 0.0)
REPEATS = 8
"""Enough for whole vectors and a rest; convolutions read a value twice, one period apart, and give one period less."""


def node(kind, inputs="x", output="y", **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def logistic(x):
    return 1 / (1 + math.exp(-x))


CONSTANTS = {
    "zero": np.float32(0),
    "six": np.float32(6),
    "half": np.full((1, 1, 1), 0.5, "float32"),
    "ones": np.ones((1, 16, 1, 1), "float32"),
}

TABLE = {
    "Relu": ([node("Relu")], (NAN, INF, 0, 2, 0, 0)),
    "LeakyRelu": ([node("LeakyRelu", alpha=0.5)], (NAN, INF, -INF, 2, -1, 0)),
    "PRelu": ([node("PRelu", "x half")], (NAN, INF, -INF, 2, -1, 0)),
    "Clip": ([node("Clip", "x zero six")], (NAN, 6, 0, 2, 0, 0)),
    "Max": ([node("Max", "x zero")], (NAN, INF, 0, 2, 0, 0)),
    "Max, scalar first": ([node("Max", "zero x")], (NAN, INF, 0, 2, 0, 0)),
    "Min": ([node("Min", "x zero")], (NAN, 0, -INF, 0, -2, 0)),
    "Min of many": ([node("Min", "x ones")], (NAN, 1, -INF, 1, -2, 0)),
    "Elu": ([node("Elu")], (NAN, INF, -1, 2, math.exp(-2) - 1, 0)),
    "Sigmoid": ([node("Sigmoid")], (NAN, 1, 0, logistic(2), logistic(-2), 0.5)),
    "Tanh": ([node("Tanh")], (NAN, 1, -1, math.tanh(2), math.tanh(-2), 0)),
    "Erf": ([node("Erf")], (NAN, 1, -1, math.erf(2), math.erf(-2), 0)),
    "Exp": ([node("Exp")], (NAN, INF, 0, math.exp(2), math.exp(-2), 1)),
    "Log": ([node("Log")], (NAN, INF, NAN, math.log(2), NAN, -INF)),
    "Sqrt": ([node("Sqrt")], (NAN, INF, NAN, math.sqrt(2), NAN, 0)),
    "Abs": ([node("Abs")], (NAN, INF, INF, 2, 2, 0)),
    "Neg": ([node("Neg")], (NAN, -INF, INF, -2, 2, 0)),
    "Reciprocal": ([node("Reciprocal")], (NAN, 0, 0, 0.5, -0.5, INF)),
    "Softplus": ([node("Softplus")], (NAN, INF, 0, math.log1p(math.exp(2)), math.log1p(math.exp(-2)), math.log(2))),
    "HardSigmoid": ([node("HardSigmoid")], (NAN, 1, 0, 0.9, 0.1, 0.5)),
    "HardSwish": ([node("HardSwish")], (NAN, INF, NAN, 10 / 6, -2 / 6, 0)),
    "Swish": ([node("Sigmoid", "x", "s"), node("Mul", "x s")], (NAN, INF, NAN, 2 * logistic(2), -2 * logistic(-2), 0)),
    "Gelu": ([node("Gelu")], (NAN, INF, NAN, 1 + math.erf(math.sqrt(2)), -1 + math.erf(math.sqrt(2)), 0)),
    "Where": ([node("Greater", "x zero", "b"), node("Where", "b x six")], (6, INF, 6, 2, 6, 6)),
    "Equal": ([node("Equal", "x x", "b"), node("Where", "b zero six")], (6, 0, 0, 0, 0, 0)),
    "Add, Relu": ([node("Add", "x x", "a"), node("Relu", "a")], (NAN, INF, 0, 4, 0, 0)),
    "Conv, Relu": ([node("Conv", "x w", "c"), node("Relu", "c")], (NAN, INF, 0, 2, 0, 0)),
    "Conv, Clip": ([node("Conv", "x w", "c"), node("Clip", "c zero six")], (NAN, 6, 0, 2, 0, 0)),
    "Conv, LeakyRelu": ([node("Conv", "x w", "c"), node("LeakyRelu", "c", alpha=0.5)], (NAN, INF, -INF, 2, -1, 0)),
    "Conv, HardSwish": ([node("Conv", "x w", "c"), node("HardSwish", "c")], (NAN, INF, NAN, 10 / 6, -2 / 6, 0)),
    "Conv, Sigmoid": ([node("Conv", "x w", "c"), node("Sigmoid", "c")], (NAN, 1, 0, logistic(2), logistic(-2), 0.5)),
    "Conv, Add, Relu": ([node("Conv", "x w", "c"), node("Conv", "x w", "d"), node("Add", "c d", "a"), node("Relu", "a")], (NAN, INF, 0, 4, 0, 0)),
}  # fmt: skip
"""By name: nodes from x to y, and the results."""

ONEDNN = {
    "Gelu": [{INF: NAN}],
    "Add, Relu": [{NAN: 0.0}],
    "Conv, Relu": [{NAN: 0.0}, {-INF: NAN}],
    "Conv, Clip": [{NAN: 0.0}],
    "Conv, Sigmoid": [{NAN: 0.0}],
    "Conv, Add, Relu": [{NAN: 0.0}],
}
"""What oneDNN 3.2 may give otherwise, by what it is given: what it fuses depends on the layout and the instruction set."""


def inputs():
    """Channels hold the given values by turns."""
    values = np.resize(np.array(GIVEN, "float32"), len(GIVEN) * REPEATS)
    return np.ascontiguousarray(np.broadcast_to(values, (1, 16, 1, len(values))))


def weights(place):
    """Of a convolution that gives what it reads; others at each place, lest one is computed for several rows."""
    first = (place + 1) / 1024
    return np.tile(np.array([first, 1 / 16 - first], "float32"), (16, 16, 1, 1))


@cache
def results(unit, layout="NCHW"):
    """Of all rows, by name; ``ort`` is ONNX Runtime."""
    nodes = []
    constants = dict(CONSTANTS)
    for place, (parts, _) in enumerate(TABLE.values()):
        for part in parts:
            copy = type(part)()
            copy.CopyFrom(part)
            copy.input[:] = [n if n in ("x", *CONSTANTS) else f"{n}{place}" for n in part.input]
            copy.output[:] = [f"{n}{place}" for n in part.output]
            if part.op_type == "Conv":
                copy.input[1] = f"weights{len(nodes)}"
                constants[copy.input[1]] = weights(len(nodes))
                copy.attribute.append(helper.make_attribute("dilations", [1, len(GIVEN)]))
            nodes.append(copy)
    feeds = {"x": inputs()}
    made = model(nodes, feeds, [f"y{place}" for place in range(len(TABLE))], constants)
    found = (
        run_onnx(made, feeds)
        if unit == "ort"
        else run(made, feeds, Decision(unit=unit, layout=layout))
    )
    return dict(zip(TABLE, found, strict=True))


def row(values: Sequence[float], like: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.resize(np.array(values, "float32"), like.shape[-1:]), like.shape)


ROUNDING = {"f32": 1e-4, "bf16": 2**-8}
"""Relative, of one result."""


def assert_row(got: np.ndarray, expected: Sequence[float], precision: str = "f32") -> None:
    most = ROUNDING[precision]
    np.testing.assert_allclose(got, row(expected, got), rtol=most, atol=1e-6, equal_nan=True)


def allowed(name: str, unit: str) -> list[list[float]]:
    """Rows that a unit may give: the expected one, and for oneDNN what it gives otherwise."""
    expected = list(TABLE[name][1])
    rows = [expected]
    for one in ONEDNN.get(name, []) if unit == "onednn" else []:
        other = {str(given): value for given, value in one.items()}
        rows.append([other.get(str(g), value) for g, value in zip(GIVEN, expected, strict=True)])
    return rows


@pytest.mark.parametrize("name", TABLE)
def test_the_table_is_what_onnx_runtime_gives(name):
    assert_row(results("ort")[name], TABLE[name][1])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", TABLE)
def test_a_unit_follows_the_table(name, unit, layout):
    got = results(unit, layout)[name]
    close = [
        np.allclose(got, row(one, got), rtol=1e-4, atol=1e-6, equal_nan=True)
        for one in allowed(name, unit)
    ]
    if not any(close):
        assert_row(got, TABLE[name][1])


ALONE = ["Exp", "Relu", "Clip", "Max", "Max, scalar first", "Min", "Min of many"]


@pytest.mark.skipif(onednn.available() is not None, reason="no oneDNN plugin")
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NCHW16c"])
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_operators_that_stand_alone_keep_nan_in_onednn(precision, layout):
    feeds = {"x": inputs()}
    wanted = Decision(unit="onednn", layout=layout, precision=precision)
    for name in ALONE:
        made = model(TABLE[name][0], feeds, ["y"], CONSTANTS)
        module = PartitionSubgraphs()(import_model(made).module)
        _, declines = decisions_for(module, wanted)
        if precision == "bf16" and declines and "AVX512_BF16" in declines[0]:
            pytest.skip(declines[0])
        if (precision, layout) == ("bf16", "NCHW16c"):
            assert all("got implementation ref:any" in decline for decline in declines)
            continue
        assert not declines
        (got,) = run(made, feeds, wanted)
        assert_row(got, TABLE[name][1], precision)


@pytest.mark.skipif(onednn.available() is not None, reason="no oneDNN plugin")
def test_onednn_declines_the_larger_of_two_tensors():
    """It would lose NaN of one of them."""
    feeds = {"x": inputs(), "z": inputs()[..., ::-1].copy()}
    made = model([node("Max", "x z")], feeds, ["y"])
    module = PartitionSubgraphs()(import_model(made).module)
    _, declines = decisions_for(module, Decision(unit="onednn"))
    assert ["NaN of one is lost" in decline for decline in declines] == [True]
    (got,) = run(made, feeds, Decision(unit="onednn"), may_decline=True)
    np.testing.assert_array_equal(got, run_onnx(made, feeds)[0])


ROWS = np.array(
    [
        [NAN, 1, 2, 3],
        [INF, 1, -INF, 0],
        [-INF, -INF, -INF, 0],
        [-INF, -INF, -INF, -INF],
        [LOWEST, LOWEST, LOWEST, LOWEST],
        [LOWEST, LOWEST, LOWEST, 5],
    ],
    "float32",
)
ONE, NONE = np.array([0, 0, 0, 1.0]), np.full(4, NAN)
SOFTMAX = np.stack([NONE, NONE, ONE, NONE, np.full(4, 0.25), ONE])


@pytest.mark.parametrize("unit", ["ort", *UNITS])
def test_softmax_of_masked_rows(unit):
    """A row that is masked with infinities as a whole has no shares; one masked with finite numbers has equal ones."""
    feeds = {"x": ROWS}
    made = model([node("Softmax", axis=-1)], feeds, ["y"])
    results = run_onnx(made, feeds) if unit == "ort" else run(made, feeds, Decision(unit=unit))
    np.testing.assert_allclose(results[0][2:], SOFTMAX[2:], atol=1e-7)
    # Other units' exponentials do not hand it on to the whole row.
    found = results[0][:2] if unit in ("ort", "cpu") else results[0][:2, :1]
    assert np.isnan(found).all()


WINDOWS = {
    "largest": ("MaxPool", {}),
    "average": ("AveragePool", {}),
    "average with padding": ("AveragePool", {"count_include_pad": 1}),
}
PADS = {"padded": [1, 1, 1, 1], "whole": [0, 0, 0, 0]}
LAYOUTS = ["NCHW", "NHWC"]


def pooled(kind, pads, attributes, value, wanted):
    feeds = {"x": np.full((1, 16, 5, 5), value, "float32")}
    shape = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": pads}
    made = model([node(kind, **shape, **attributes)], feeds, ["y"])
    (result,) = run(made, feeds, wanted)
    return result


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pads", PADS)
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_of_infinities(name, pads, layout, unit):
    """ONNX Runtime's largest number of such a window is -inf or the least finite one, by its place; ours is -inf."""
    kind, attributes = WINDOWS[name]
    got = pooled(kind, PADS[pads], attributes, -INF, Decision(unit=unit, layout=layout))
    least = LOWEST if unit == "onednn" and kind == "MaxPool" else -INF
    np.testing.assert_array_equal(got, np.full(got.shape, least, "float32"))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", ["average", "average with padding"])
def test_averages_with_one_that_is_no_number_are_none(name, unit):
    kind, attributes = WINDOWS[name]
    got = pooled(kind, PADS["padded"], attributes, NAN, Decision(unit=unit))
    assert np.isnan(got).all()


@pytest.mark.parametrize("unit", ["cpu", "opencl"])
def test_no_window_of_numbers_is_touched_by_one_without(unit):
    """A NaN may or may not win its window, as in ONNX Runtime; windows without it do not see it."""
    if unit == "opencl" and UNITS[2].marks[0].args[0]:
        pytest.skip("no OpenCL device")
    value = np.arange(49, dtype="float32").reshape(1, 1, 7, 7).repeat(16, axis=1)
    value[:, :, 0, 0] = NAN
    feeds = {"x": value}
    made = model([node("MaxPool", kernel_shape=[3, 3], strides=[2, 2])], feeds, ["y"])
    (got,) = run(made, feeds, Decision(unit=unit))
    want = np.array([[16, 18, 20], [30, 32, 34], [44, 46, 48]], "float32")
    assert np.isnan(got[0, :, 0, 0]).all() or (got[0, :, 0, 0] == 16).all()
    np.testing.assert_array_equal(got[0, 3].ravel()[1:], want.ravel()[1:])


@pytest.mark.parametrize("unit", UNITS)
def test_largest_and_index(unit):
    feeds = {"x": np.array([[-INF, -INF, -INF], [1, INF, 2], [-INF, 3, -INF]], "float32")}
    nodes = [
        node("ReduceMax", "x axis", "m", keepdims=0),
        node("ArgMax", "x", "i", axis=1, keepdims=0),
        node("Cast", "i", "k", to=1),
    ]
    made = model(nodes, feeds, ["m", "k"], {"axis": np.array([1])})
    largest, index = run(made, feeds, Decision(unit=unit))
    least = LOWEST if unit == "onednn" else -INF
    np.testing.assert_array_equal(largest, np.array([least, INF, 3], "float32"))
    np.testing.assert_array_equal(index, [0, 1, 1])
