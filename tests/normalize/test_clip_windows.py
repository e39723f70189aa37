"""Windows are clipped to the input: before and expected, the right divisor, nothing larger than it has to be."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import pytest
import tvm
from normalizing import module_of, operators, unchanged
from onnx import TensorProto, helper
from reference import TOLERANCE, relative_error, run_onnx, run_relax
from tvm import relax
from tvm.relax.op import nn

from layoutsel.errors import InvalidModel
from layoutsel.model import import_model
from tvm_passes.ir import main_bindings
from tvm_passes.normalize import ClipWindows

MAP = (1, 2, 7, 7)


def rewritten(before, expected, shape=MAP):
    after = ClipWindows()(module_of(before, shape))
    tvm.ir.assert_structural_equal(after, module_of(expected, shape))
    tvm.ir.assert_structural_equal(ClipWindows()(after), after)


def weight(*shape):
    return np.random.default_rng(3).standard_normal(shape).astype("float32")


def test_a_window_beyond_the_map_becomes_the_map():
    rewritten(
        lambda e, x: nn.avg_pool2d(
            x, [1280, 1280], [1280, 1280], ceil_mode=True, count_include_pad=True
        ),
        lambda e, x: nn.avg_pool2d(x, [7, 7], [1, 1], count_include_pad=True),
    )


def test_the_divisor_counts_declared_padding():
    rewritten(
        lambda e, x: nn.avg_pool2d(x, [9, 9], padding=[1, 1, 1, 1], count_include_pad=True),
        lambda e, x: relax.op.multiply(
            e(nn.avg_pool2d(x, [7, 7], count_include_pad=True)),
            relax.const(np.float32(49 / 81)),
        ),
    )


def test_the_divisor_of_a_last_window_that_overhangs():
    rewritten(
        lambda e, x: nn.avg_pool1d(x, [4], [4], ceil_mode=True, count_include_pad=True),
        lambda e, x: nn.avg_pool1d(x, [4], [4], padding=[0, 1], count_include_pad=False),
        (1, 2, 7),
    )


def test_maximum_pooling_is_clipped():
    rewritten(
        lambda e, x: nn.max_pool2d(x, [640, 3], [640, 2], ceil_mode=True),
        lambda e, x: nn.max_pool2d(x, [7, 3], [1, 2], count_include_pad=True),
    )


def test_taps_that_only_meet_padding_are_cut_from_weights():
    full = weight(4, 2, 3, 3)
    rewritten(
        lambda e, x: nn.conv2d(x, relax.const(full), padding=8, dilation=8),
        lambda e, x: nn.conv2d(x, relax.const(full[:, :, 1:2, 1:2]), dilation=8),
    )


def test_weights_of_run_time_are_sliced():
    full = relax.Var("w", relax.TensorType((4, 2, 3, 3), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [full]):
        data = relax.const(weight(*MAP))
        builder.emit_func_output(builder.emit(nn.conv2d(data, full, padding=9, dilation=9)))
    before = builder.finalize()
    after = ClipWindows()(before)
    assert operators(after) == {"strided_slice": 1, "nn.conv2d": 1}
    (got,), (want,) = (run_relax(module, [weight(4, 2, 3, 3)]) for module in (after, before))
    assert relative_error(got, want) <= TOLERANCE


def test_outputs_that_see_only_padding_are_zeros():
    full = weight(4, 2, 3)
    rewritten(
        lambda e, x: nn.conv1d(x, relax.const(full), strides=1000, padding=2000),
        lambda e, x: nn.pad(e(nn.conv1d(x, relax.const(full), strides=5)), [0, 0, 0, 0, 2, 2]),
        (1, 2, 7),
    )


def test_a_convolution_of_padding_alone_is_zero():
    rewritten(
        lambda e, x: nn.conv1d(x, relax.const(weight(4, 2, 3)), strides=700, padding=[1000, 0]),
        lambda e, x: relax.op.zeros((1, 4, 2), "float32"),
        (1, 2, 7),
    )


@pytest.mark.parametrize(
    "emit",
    [
        lambda e, x: nn.avg_pool2d(x, [3, 3], [2, 2], [1, 1]),
        lambda e, x: nn.avg_pool2d(x, [3, 3], [2, 2], [1, 1], ceil_mode=True),
        lambda e, x: nn.max_pool2d(x, [7, 7], [1, 1], [3, 3]),
        lambda e, x: nn.conv2d(x, relax.const(weight(4, 2, 3, 3)), padding=1),
        lambda e, x: nn.conv2d(x, relax.const(weight(4, 2, 1, 1)), padding=1),
        lambda e, x: nn.conv2d(x, relax.const(weight(4, 2, 7, 7)), padding=3, strides=2),
    ],
)
def test_ordinary_windows_stay(emit):
    unchanged(ClipWindows(), emit, MAP)


def model_of(op_type, sizes, opset=22, weights=(), **attributes):
    shape = (1, 2, *sizes)
    names = ["x", *(f"w{i}" for i in range(len(weights)))]
    node = helper.make_node(op_type, names, ["y"], "window", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(w, n) for w, n in zip(weights, names[1:], strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def check_against_onnx_runtime(model):
    """Equal values, and no intermediate tensor much larger than input and result."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    value = np.random.default_rng(1).standard_normal(shape).astype("float32")
    (want,) = run_onnx(model, {"x": value})
    module = import_model(model).module
    (got,) = run_relax(module, [value])
    assert got.dtype == want.dtype
    assert relative_error(got, want) <= TOLERANCE
    for binding in main_bindings(module["main"]):
        size = prod(int(dim) for dim in binding.var.ty.shape.values)
        assert size <= 4 * max(value.size, 1) * max(want.size, 1)
    return module


EXTREMES = {
    "global": dict(kernel_shape=[1280] * 2, strides=[1280] * 2, ceil_mode=1),
    "padded by the window": dict(kernel_shape=[40, 50], strides=[1, 3], pads=[39, 49, 38, 47]),
    "wide strides": dict(kernel_shape=[60000, 7], strides=[55000, 7], pads=[50000, 0, 0, 0]),
    "one dimension": dict(kernel_shape=[90000], strides=[80000], pads=[70000, 60000], ceil_mode=1),
    "three dimensions": dict(kernel_shape=[99] * 3, strides=[98] * 3, ceil_mode=1),
    "no room": dict(kernel_shape=[10], strides=[10]),
}


@pytest.mark.parametrize("op_type", ["AveragePool", "MaxPool", "LpPool"])
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_poolings_have_the_values_of_onnx_runtime(op_type, name):
    attributes = EXTREMES[name]
    rank = len(attributes["kernel_shape"])
    check_against_onnx_runtime(model_of(op_type, (7, 5, 3)[:rank], **attributes))


@pytest.mark.parametrize("opset", [17, 22])
@pytest.mark.parametrize("name", EXTREMES)
def test_padding_counts_as_in_onnx_runtime(opset, name):
    attributes = {**EXTREMES[name], "count_include_pad": 1}
    rank = len(attributes["kernel_shape"])
    check_against_onnx_runtime(model_of("AveragePool", (7, 5, 3)[:rank], opset, **attributes))


@pytest.mark.parametrize("seed", range(12))
def test_random_poolings_have_the_values_of_onnx_runtime(seed):
    rng = np.random.default_rng(seed)
    rank = 1 + seed % 3
    kernel = rng.integers(1, 9, rank).tolist()
    attributes = dict(
        kernel_shape=kernel,
        strides=rng.integers(1, 8, rank).tolist(),
        pads=[int(rng.integers(0, size)) for size in kernel * 2],
        ceil_mode=int(seed // 3 % 2),
    )
    op_type = ("AveragePool", "MaxPool", "LpPool")[seed // 4]
    if op_type == "AveragePool":
        attributes["count_include_pad"] = int(seed % 2)
    check_against_onnx_runtime(model_of(op_type, rng.integers(8, 12, rank).tolist(), **attributes))


@pytest.mark.parametrize(
    "attributes",
    [
        dict(dilations=[50], pads=[50, 50]),
        dict(strides=[100000], pads=[100000, 99999]),
        dict(strides=[3], pads=[40, 2]),
        dict(dilations=[5], strides=[2], pads=[1, 9]),
        dict(dilations=[1000], strides=[7], pads=[2000, 1000]),
    ],
)
def test_convolutions_have_the_values_of_onnx_runtime(attributes):
    check_against_onnx_runtime(model_of("Conv", (6,), weights=[weight(4, 2, 3)], **attributes))


@pytest.mark.parametrize("size", [5, 6, 10**9, 10**9 + 1])
def test_windows_over_channels_are_clipped(size):
    model = model_of("LRN", (3, 3), size=size, alpha=0.3)
    value = np.random.default_rng(1).standard_normal((1, 2, 3, 3)).astype("float32")
    square = value.astype("float64") ** 2
    before = (size - 1) // 2
    sums = np.stack(
        [square[:, max(0, c - before) : min(1, c + size - 1 - before) + 1].sum(1) for c in (0, 1)],
        1,
    )
    want = value / (1 + 0.3 / size * sums) ** 0.75
    (got,) = run_relax(import_model(model).module, [value])
    assert relative_error(got, want) <= TOLERANCE


def test_windows_without_room_are_refused():
    with pytest.raises(InvalidModel, match=r"leaves a result of \[1, 2, 0\]; expected room"):
        import_model(model_of("AveragePool", (7,), kernel_shape=[17], strides=[10]))
