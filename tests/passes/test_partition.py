"""Sub-graphs: what fuses, what does not, convexity, and that nothing changes numerically."""

from __future__ import annotations

import numpy as np
import pytest
from modules import conv, module_of, run, weight
from tvm import relax
from tvm.relax.op import add, concat, multiply, nn, permute_dims, reshape, sigmoid, split

from tvm_passes.errors import UnsupportedModel
from tvm_passes.ir import main_bindings, op_name
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import subgraph_id


def operators(module):
    """Operators of every sub-graph, by id, and the number of activations of each."""
    return {
        subgraph_id(f): [op_name(binding.value) for binding in main_bindings(f)]
        for f in PartitionSubgraphs()(module).functions.values()
        if subgraph_id(f)
    }


def test_epilogue_fuses_behind_its_anchor():
    module = module_of(lambda b, x: nn.relu(b.emit(add(b.emit(conv(x)), weight(1, 16, 1, 1)))))
    assert operators(module) == {"s0": ["nn.conv2d", "add", "nn.relu"]}


def test_later_branch_takes_the_residual_add():
    def emit(b, x):
        left = b.emit(conv(x, seed=1))
        right = b.emit(conv(x, seed=2))
        return nn.relu(b.emit(add(left, right)))

    assert operators(module_of(emit)) == {
        "s0": ["nn.conv2d"],
        "s1": ["nn.conv2d", "add", "nn.relu"],
    }


def test_swish_fuses_through_its_diamond():
    def emit(b, x):
        y = b.emit(conv(x))
        return multiply(y, b.emit(sigmoid(y)))

    assert operators(module_of(emit)) == {"s0": ["nn.conv2d", "sigmoid", "multiply"]}


def test_a_value_read_outside_ends_the_sub_graph():
    def emit(b, x):
        y = b.emit(conv(x))
        z = b.emit(nn.relu(y))
        return concat([y, z], axis=1)

    assert operators(module_of(emit)) == {"s0": ["nn.conv2d"], "s1": ["nn.relu"], "s2": ["concat"]}


def test_broadcast_that_enlarges_does_not_fuse():
    def emit(b, x):
        pooled = b.emit(relax.op.mean(x, axis=[2, 3], keepdims=True))
        return multiply(pooled, x)

    assert operators(module_of(emit)) == {"s0": ["mean"], "s1": ["multiply"]}


def test_channel_shuffle_is_one_sub_graph():
    def emit(b, x):
        y = b.emit(reshape(x, (1, 4, 4, 8, 8)))
        return reshape(b.emit(permute_dims(y, [0, 2, 1, 3, 4])), (1, 16, 8, 8))

    assert operators(module_of(emit)) == {"s0": ["reshape", "permute_dims", "reshape"]}


def _shuffled(b, y, groups, axes=(0, 2, 1, 3, 4)):
    n, c, h, w = (int(extent) for extent in y.ty.shape)
    cut = b.emit(reshape(y, (n, groups, c // groups, h, w)))
    return b.emit(reshape(b.emit(permute_dims(cut, list(axes))), (n, c, h, w)))


def test_a_shuffle_by_its_groups_fuses_behind_a_convolution():
    def emit(b, x):
        y = b.emit(nn.relu(b.emit(nn.conv2d(x, weight(24, 4, 1, 1), groups=4))))
        return nn.relu(_shuffled(b, y, 4))

    assert operators(module_of(emit)) == {
        "s0": ["nn.conv2d", "nn.relu", "reshape", "permute_dims", "reshape"],
        "s1": ["nn.relu"],
    }


@pytest.mark.parametrize(
    ("groups", "shuffled", "reads_before"),
    [(4, 2, False), (4, 6, False), (1, 4, False), (16, 16, False), (4, 4, True)],
    ids=["fewer groups", "more groups", "no groups", "depthwise", "read before"],
)
def test_any_other_shuffle_stands_alone(groups, shuffled, reads_before):
    def emit(b, x):
        channels = 48 if groups < 16 else 16
        y = b.emit(nn.conv2d(x, weight(channels, 16 // groups, 1, 1), groups=groups))
        z = _shuffled(b, y, shuffled)
        return add(z, y) if reads_before else nn.relu(z)

    assert list(operators(module_of(emit)).values())[:2] == [
        ["nn.conv2d"],
        ["reshape", "permute_dims", "reshape"],
    ]


def test_several_results_stay_with_one_sub_graph():
    def emit(b, x):
        parts = b.emit(split(x, 2, axis=1))
        return add(b.emit(relax.TupleGetItem(parts, 0)), b.emit(relax.TupleGetItem(parts, 1)))

    assert operators(module_of(emit)) == {"s0": ["split"], "s1": ["add"]}


def test_local_response_normalisation_is_one_sub_graph():
    def emit(b, x):
        square = b.emit(relax.op.expand_dims(b.emit(multiply(x, x)), 1))
        mean = b.emit(nn.avg_pool3d(square, (5, 1, 1), padding=(2, 0, 0), count_include_pad=True))
        scaled = b.emit(multiply(b.emit(relax.op.squeeze(mean, [1])), relax.const(1e-4)))
        powered = relax.op.power(b.emit(add(scaled, relax.const(1.0))), relax.const(0.75))
        return relax.op.divide(x, b.emit(powered))

    assert len(operators(module_of(emit))) == 1


def test_partitioning_changes_no_result_and_is_idempotent():
    def emit(b, x):
        y = b.emit(nn.relu(b.emit(add(b.emit(conv(x)), weight(1, 16, 1, 1)))))
        return add(b.emit(conv(y, seed=3)), x)

    module = module_of(emit)
    x = np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype("float32")
    partitioned = PartitionSubgraphs()(module)
    np.testing.assert_array_equal(run(module, x)[0], run(partitioned, x)[0])
    assert PartitionSubgraphs()(partitioned).same_as(partitioned)


def test_control_flow_is_refused_by_name():
    cond = relax.Var("cond", relax.TensorType((), "bool"))
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [cond, x]):
        chosen = builder.emit(relax.If(cond, nn.relu(x), nn.silu(x)))
        builder.emit_func_output(chosen)
    with pytest.raises(UnsupportedModel, match="control flow"):
        PartitionSubgraphs()(builder.get())


def quantised(b, x):
    """`x` as integers, and these as numbers."""
    steps = relax.const(0.1, "float32"), relax.const(0, "int8")
    integers = b.emit(relax.op.quantize(x, *steps))
    return integers, b.emit(relax.op.dequantize(integers, *steps))


def test_integers_cross_between_subgraphs():
    def emit(b, x):
        _, numbers = quantised(b, x)
        _, again = quantised(b, b.emit(nn.relu(b.emit(conv(numbers, seed=1)))))
        first, second = b.emit(conv(again, seed=2)), b.emit(conv(again, seed=3))
        return add(first, second)

    assert operators(module_of(emit)) == {
        "s0": ["quantize"],
        "s1": ["dequantize", "nn.conv2d", "nn.relu", "quantize"],
        "s2": ["dequantize", "nn.conv2d"],
        "s3": ["dequantize", "nn.conv2d", "add"],
    }


def test_shared_numbers_are_computed_by_each_reader():
    def emit(b, x):
        _, numbers = quantised(b, x)
        _, again = quantised(b, b.emit(conv(numbers)))
        return nn.relu(b.emit(add(b.emit(conv(again, seed=2)), again)))

    assert operators(module_of(emit)) == {
        "s0": ["quantize"],
        "s1": ["dequantize", "nn.conv2d", "quantize"],
        "s2": ["dequantize", "nn.conv2d", "add", "nn.relu"],
    }


def test_rounding_between_an_anchor_and_what_follows_fuses():
    def emit(b, x):
        _, rounded = quantised(b, b.emit(conv(x)))
        return quantised(b, b.emit(add(rounded, x)))[1]

    assert operators(module_of(emit)) == {
        "s0": ["nn.conv2d", "quantize", "dequantize", "add", "quantize", "dequantize"]
    }
