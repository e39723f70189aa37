"""The order of calls, and partitions that keep to it."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax.op import nn

from tests.cpu.support import model, weights
from tests.reference import run_relax
from tvm_passes.decision import Decision
from tvm_passes.errors import IllegalDecision
from tvm_passes.ir import main_bindings, op_name
from tvm_passes.merge_partitions import MergePartitions
from tvm_passes.order_subgraphs import OrderSubgraphs
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.pipeline import decide
from tvm_passes.rewrite_layouts import subgraph_id

SHAPE = (1, 16, 8, 8)


def fork(x):
    """A stem, two branches that read it, and their sum."""
    stem = nn.relu(nn.conv2d(x, weights(16, 16, 3, 3), padding=1))
    left = nn.conv2d(stem, weights(16, 16, 1, 1, seed=2))
    right = nn.max_pool2d(stem, (3, 3), (1, 1), (1, 1))
    return nn.softmax(relax.op.concat([left, right], axis=1), axis=1)


@pytest.fixture
def partitioned():
    return PartitionSubgraphs()(model(fork, SHAPE))


def called(module):
    """Sub-graphs in the order in which `main` calls them."""
    names = [op_name(binding.value) for binding in main_bindings(module["main"])]
    functions = {gv.name_hint: function for gv, function in module.functions.items()}
    return [subgraph_id(functions[name]) for name in names if name in functions]


def test_before_and_expected(partitioned):
    assert called(partitioned) == ["s0", "s1", "s2", "s3", "s4"]
    ordered = OrderSubgraphs(["s0", "s2", "s1", "s3", "s4"])(partitioned)
    assert called(ordered) == ["s0", "s2", "s1", "s3", "s4"]
    relax.analysis.well_formed(ordered)
    again = OrderSubgraphs(["s0", "s1", "s2", "s3", "s4"])(ordered)
    assert called(again) == called(partitioned)


def test_the_values_stay(partitioned):
    ordered = OrderSubgraphs(["s0", "s2", "s1", "s3", "s4"])(partitioned)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    np.testing.assert_array_equal(run_relax(ordered, [x])[0], run_relax(partitioned, [x])[0])


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (["s0", "s1"], "expected each of the model's 5 once"),
        (["s0", "s1", "s1", "s3", "s4"], "expected each of the model's 5 once"),
        (["s1", "s0", "s2", "s3", "s4"], "calls sub-graph s1 before"),
    ],
)
def test_an_order_that_is_none_is_refused(partitioned, order, said):
    with pytest.raises(IllegalDecision, match=said):
        OrderSubgraphs(order)(partitioned)


@pytest.mark.parametrize(("apart", "partitions"), [((), [2, 1]), (("opencl",), [1, 1, 1])])
def test_partitions_end_where_a_device_is_called(partitioned, apart, partitions):
    """s2 reads s0 alone, and need not wait for s1, which is called behind it; nor need s1 wait for s2, as s3 does."""
    ordered = OrderSubgraphs(["s0", "s2", "s1", "s3", "s4"])(partitioned)
    units = {"s2": "opencl", "s4": "cpu"}
    decisions = {
        id_: Decision(unit=units.get(id_, "onednn")) for id_ in ("s0", "s1", "s2", "s3", "s4")
    }
    merged = MergePartitions({"onednn": "codegen"}, apart)(decide(ordered, decisions))
    assert sizes_of(merged) == partitions


def sizes_of(module):
    """How many sub-graphs each partition holds, in the order of calls."""
    found = []
    for binding in main_bindings(module["main"]):
        name = op_name(binding.value)
        functions = [f for gv, f in module.functions.items() if gv.name_hint == name]
        if functions and functions[0].attrs and "Codegen" in functions[0].attrs:
            inner = [b.value for b in main_bindings(functions[0])]
            found.append(sum(isinstance(value, relax.Function) for value in inner))
    return found
