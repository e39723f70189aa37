"""Inputs that a network reads as indices: they are refused where, and only where, ONNX Runtime raises an error."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort
from reference import run_onnx, run_relax

from layoutsel.device.signature import Signature, ValueRange, signatures
from layoutsel.errors import InputError
from layoutsel.model import import_model
from layoutsel.references.drawn_inputs import drawn_inputs
from layoutsel.runtime.binding import bind
from layoutsel.runtime.samples import random_inputs
from tests.units.on_units import model

TABLE = np.arange(8, dtype="float32")
SQUARE = np.arange(12, dtype="float32").reshape(3, 4)
CONSTANTS = {
    "table": TABLE, "square": SQUARE, "updates": np.ones(2, "float32"), "matrix": SQUARE[:, :2],
    "axis": np.array([0]), "zero": np.array(0), "one": np.array(1), "two": np.array(2), "three": np.array(3),
    "shape": np.array([2, 1]), "first": np.array([0]), "next": np.array([1]), "end": np.array([2]), "size": np.array(8),
    "sizes": np.array([0, 3]), "minus": np.array(-2), "reps": np.array([3]),
}  # fmt: skip


def node(kind, inputs, output="y", **attributes):
    return helper.make_node(kind, inputs.split(), output.split(), **attributes)


def to(kind, of="i", output="j"):
    return node("Cast", of, output, to=kind)


LOOKED_UP = node("Gather", "table j")

GRAPHS = {
    "Gather": [node("Gather", "table i")],
    "Gather along an axis": [node("Gather", "square i", axis=-1)],
    "GatherElements": [node("GatherElements", "table i")],
    "GatherND of one coordinate": [node("Unsqueeze", "i next", "j"), node("GatherND", "table j")],
    "GatherND of two": [node("GatherND", "square i")],
    "ScatterElements": [node("ScatterElements", "table i updates")],
    "ScatterND": [node("Unsqueeze", "i next", "j"), node("ScatterND", "table j updates")],
    "OneHot": [node("Cast", "i", "j", to=7), node("OneHot", "j three updates", "y")],
    "MaxUnpool": [
        node("Unsqueeze", "i front", "j"),
        node("MaxUnpool", "pooled j", kernel_shape=[2, 2], strides=[2, 2]),
    ],
    "cast": [to(6), LOOKED_UP],
    "cast to float and back": [to(1, output="f"), to(7, "f"), LOOKED_UP],
    "reshaped": [node("Reshape", "i shape", "j"), LOOKED_UP],
    "sliced": [node("Slice", "i next end", "j"), LOOKED_UP],
    "two of one": [node("Split", "i", "j k", num_outputs=2), node("Gather", "table j", "a"),
                   node("Gather", "square k", "b", axis=1), node("Add", "a b")],
    "beside a constant": [node("Concat", "i first", "j", axis=0), LOOKED_UP],
    "repeated": [node("Tile", "i reps", "j"), LOOKED_UP],
    "turned around": [node("Gather", "i end_first", "j"), node("Add", "j sizes", "k"), node("Gather", "table k")],
    "plus a constant": [node("Add", "two i", "j"), LOOKED_UP],
    "plus one constant each": [node("Add", "i sizes", "j"), LOOKED_UP],
    "from a constant": [node("Sub", "two i", "j"), LOOKED_UP],
    "times": [node("Mul", "i three", "j"), LOOKED_UP],
    "times a negative one": [node("Mul", "i minus", "k"), node("Add", "k one", "j"), LOOKED_UP],
    "negative": [node("Neg", "i", "j"), LOOKED_UP],
    "clipped": [node("Clip", "i zero size", "j"), LOOKED_UP],
    "clipped to what is legal": [node("Clip", "i zero three", "j"), LOOKED_UP],
    "at least": [node("Max", "i zero", "j"), LOOKED_UP],
    "at most, then moved": [node("Min", "three i", "k"), node("Sub", "k three", "j"), LOOKED_UP],
    "remainder": [node("Mod", "i size", "j"), LOOKED_UP],
    "from the end": [
        node("Less", "i zero", "b"), node("Add", "i size", "k"), node("Where", "b k i", "j"), LOOKED_UP,
    ],
    "in two tables": [node("Gather", "table i", "a"), node("Gather", "square i", "b", axis=1),
                      node("ReduceSum", "b zero_axis", "c", keepdims=0), node("Add", "a c")],
    "not as an index": [node("Add", "i i", "k"), to(1, "k", "y")],
}  # fmt: skip
"""By name: nodes from i to y."""
FURTHER = {
    "front": np.array([0, 1, 2]),
    "pooled": np.ones((1, 1, 1, 2), "float32"),
    "end_first": np.array([1, 0]),
    "zero_axis": np.array([0]),
}
VALUES = [-20, -17, -16, -11, -10, -9, -8, -6, -5, -4, -3, -2, 0, 2, 3, 4, 5, 6, 7, 8, 10, 12]


def built(nodes, given, **further):
    used = {name for one in nodes for name in one.input}
    constants = {k: v for k, v in {**CONSTANTS, **FURTHER, **further}.items() if k in used}
    made = model(nodes, {"i": given}, ["y"], constants, opset=18)
    assert used <= {"i", *constants, *(name for one in nodes for name in one.output)}
    return made


def start_of(name):
    return np.zeros((1, 2) if name == "GatherND of two" else 2, "int64")


def is_refused(takes, given):
    try:
        bind(takes, [given], {})
    except InputError:
        return True
    return False


def session_of(made):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(made.SerializeToString(), options, ["CPUExecutionProvider"])


@pytest.mark.parametrize("name", GRAPHS)
def test_refused_where_onnx_runtime_raises(name):
    start = start_of(name)
    made = built(GRAPHS[name], start)
    takes = signatures(import_model(made).inputs)
    reference = session_of(made)
    for pair in product(VALUES, [0, 1, -3, -4, 4, 7, 8]):
        given = np.array(pair).reshape(start.shape)
        try:
            reference.run(None, {"i": given})
            raises = False
        except (ort.Fail, ort.InvalidArgument, ort.RuntimeException):
            raises = True
        assert is_refused(takes, given) == raises, given


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32", "float64"])
def test_other_types_of_inputs(dtype):
    made = built([to(7), LOOKED_UP], np.zeros(2, dtype))
    (takes,) = signatures(import_model(made).inputs)
    low = 0 if dtype == "uint8" else -8
    assert takes.ranges == (ValueRange(low=low, high=7, start=0, stop=2),)
    assert not is_refused([takes], np.array([7, low]).astype(dtype))
    assert is_refused([takes], np.array([0, 8]).astype(dtype))
    if dtype.startswith("float"):
        assert not is_refused([takes], np.array([7.9, -8.9], dtype))
        assert is_refused([takes], np.array([0, np.nan], dtype))


def test_the_message_names_input_position_value_and_range():
    made = built([node("GatherND", "square i")], np.zeros((2, 3, 2), "int64"))
    given = np.zeros((2, 3, 2), "int64")
    given[1, 2, 0] = 3
    takes = signatures(import_model(made).inputs)
    with pytest.raises(
        InputError, match=r"input 'i': got 3 at position \(1, 2, 0\); expected -3 to 2, as "
    ):
        bind(takes, [given], {})
    given[1, 2] = -3, -5
    with pytest.raises(
        InputError, match=r"input 'i': got -5 at position \(1, 2, 1\); expected -4 to 3, as "
    ):
        bind(takes, [given], {})


def test_indices_of_what_nobody_reads_are_free():
    nodes = [node("Gather", "table i", "z"), node("Add", "i i", "k"), to(1, "k", "y")]
    (takes,) = signatures(import_model(built(nodes, np.zeros(2, "int64"))).inputs)
    assert takes.ranges == ()


@pytest.mark.parametrize(("kind", "axis"), [(np.int64, -1), (np.int32, 0), (np.float32, 1)])
def test_one_hot_is_of_its_values_type(kind, axis):
    """An index outside gives a row without a one."""
    given = np.array([[-4, -3, -1], [0, 2, 3]], kind)
    constants = {"depth": np.array([3], kind), "values": np.array([0.5, 2], "float32")}
    made = model([node("OneHot", "i depth values", axis=axis)], {"i": given}, ["y"], constants)
    (got,) = run_relax(import_model(made).module, [given])
    (want,) = run_onnx(made, {"i": given})
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


def test_drawn_values_are_legal():
    """Verification, timing and the command line draw their inputs."""
    for name, nodes in GRAPHS.items():
        made = built(nodes, start_of(name))
        takes = signatures(import_model(made).inputs)
        for draw in (
            random_inputs(takes),
            drawn_inputs(takes, {}),
            drawn_inputs(takes, {}, extreme=True),
        ):
            bind(takes, draw, {})
            run_onnx(made, {"i": draw[0]})


def test_draws_reach_both_ends():
    takes = [Signature(name="i", shape=(400,), dtype="int64", ranges=(
        ValueRange(low=-3, high=2, start=0, stop=399, step=2),
        ValueRange(low=-4, high=-2, start=1, stop=400, step=2),
    ))]  # fmt: skip
    (plain,), (extreme,) = drawn_inputs(takes, {}), drawn_inputs(takes, {}, extreme=True)
    assert set(plain[::2]) == {0, 1, 2}
    assert set(plain[1::2]) == {-4, -3, -2} or set(plain[1::2]) == {-2}
    assert set(extreme[::2]) == {0, 2}


def test_many_different_parts_are_bounded_by_the_widest():
    sizes = np.arange(200) ** 2 % 97
    made = built([node("Add", "i many", "j"), LOOKED_UP], np.zeros(200, "int64"), many=sizes)
    (takes,) = signatures(import_model(made).inputs)
    assert takes.ranges == (ValueRange(low=-8 - int(sizes.max()), high=7, start=0, stop=200),)


def test_headers_hold_ranges_and_older_ones_none():
    one = Signature(
        name="i", shape=(2,), dtype="int64", ranges=(ValueRange(low=0, high=1, start=0, stop=2),)
    )
    assert Signature.read(one.to_json()) == one
    assert Signature.read({"name": "i", "shape": [2], "dtype": "int64"}).ranges == ()
