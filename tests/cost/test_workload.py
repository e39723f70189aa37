"""Workloads from shapes alone, written by hand: no TVM, no function."""

from __future__ import annotations

import pytest
from learning import profile

from layoutsel.cost.learned import LearnedCost, LearnedModel
from layoutsel.cost.model import Question
from layoutsel.cost.operations import Operation, TypedShape
from layoutsel.cost.workload import SubgraphShapes
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError


def convolution(channels=64, side=56, outputs=64, kernel=3, dtype="float32"):
    """A convolution with bias and Relu."""
    data = TypedShape((1, channels, side, side), dtype)
    weight = TypedShape((outputs, channels, kernel, kernel), dtype)
    bias = TypedShape((1, outputs, 1, 1), dtype)
    result = TypedShape((1, outputs, side, side), dtype)
    pad = kernel // 2
    return SubgraphShapes(
        operations=(
            Operation(
                operator="nn.conv2d",
                inputs=(data, weight),
                outputs=(result,),
                attributes={
                    "strides": (1, 1),
                    "padding": (pad,) * 4,
                    "groups": (1,),
                    "other": (7,),
                },
            ),
            Operation(operator="add", inputs=(result, bias), outputs=(result,)),
            Operation(operator="nn.relu", inputs=(result,), outputs=(result,)),
        ),
        inputs=(data,),
        weights=(weight, bias),
        outputs=(result,),
    )


def test_a_convolution():
    work = convolution().workload()
    pixels = 64 * 56 * 56
    assert work.operator == "nn.conv2d"
    assert work.operators == ("nn.conv2d", "add", "nn.relu")
    assert work.flops == 2 * pixels * 64 * 9 + 2 * pixels
    assert work.weight_bytes == 4 * (64 * 64 * 9 + 64)
    assert work.activation_bytes == 4 * 2 * pixels
    assert work.inputs == work.outputs == ((1, 64, 56, 56),)
    assert work.attributes == {"strides": (1, 1), "padding": (1,) * 4, "groups": (1,)}


def test_narrow_elements_are_fewer_bytes():
    assert 2 * convolution(dtype="bfloat16").weight_bytes == convolution().weight_bytes


def test_keys_tell_shapes_apart_and_a_given_key_wins():
    keys = {convolution(channels=n).workload().key for n in (8, 16, 24)}
    assert len(keys) == 3
    assert convolution().workload().key == convolution().workload().key
    assert convolution().workload(key="measured").key == "measured"


def test_a_table_is_read_by_the_rows_that_it_gives():
    table, rows = TypedShape((30_000, 64)), TypedShape((8, 64))
    positions = TypedShape((8,), "int64")
    take = Operation(operator="take", inputs=(table, positions), outputs=(rows,))
    work = SubgraphShapes(
        operations=(take,), inputs=(positions,), weights=(table,), outputs=(rows,)
    ).workload()
    assert (work.operator, work.flops, work.weight_bytes) == ("take", 0, rows.nbytes)
    assert work.activation_bytes == 8 * 8 + rows.nbytes


@pytest.mark.parametrize(
    ("operator", "attributes", "flops"),
    [
        ("nn.max_pool2d", {"pool_size": (3, 3)}, 9 * 196),
        ("nn.softmax", {}, 5 * 784),
        ("mean", {}, 784),
        ("permute_dims", {}, 0),
        ("nn.relu", {}, 196),
        ("something.new", {}, 196),
    ],
)
def test_flops(operator, attributes, flops):
    call = Operation(
        operator=operator,
        inputs=(TypedShape((1, 1, 28, 28)),),
        outputs=(TypedShape((1, 1, 14, 14)),),
        attributes=attributes,
    )
    assert call.flops == flops


def test_a_permutation_keeps_its_shape_and_axes():
    source, result = TypedShape((2, 3, 4)), TypedShape((4, 3, 2))
    call = Operation(operator="permute_dims", inputs=(source,), outputs=(result,))
    shapes = SubgraphShapes(operations=(call,), inputs=(source,), outputs=(result,))
    assert shapes.anchor == "movement"
    assert shapes.attributes == {"permuted": (2, 3, 4), "axes": (2, 1, 0)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SubgraphShapes(operations=(), inputs=(), outputs=()), "0 operations"),
        (lambda: TypedShape((1,), "float33").nbytes, "got element type 'float33'"),
        (
            lambda: Operation(operator="nn.conv2d", inputs=(), outputs=(TypedShape((1,)),)).flops,
            "cannot count the FLOPs of nn.conv2d: got operands none",
        ),
        (
            lambda: (
                Operation(operator="nn.max_pool2d", inputs=(), outputs=(TypedShape((1,)),)).flops
            ),
            "expected those of its definition",
        ),
    ],
)
def test_a_description_that_makes_no_sense_is_one_error(make, message):
    with pytest.raises(LayoutselError, match=message):
        make()


def test_thousands_of_shapes_are_one_question():
    model = LearnedCost(LearnedModel.load(), profile())
    decision = Decision(unit="onednn", layout="NHWC")
    works = [convolution(channels=n, side=7).workload() for n in range(1, 1001)]
    prices = model.subgraphs([Question(work, decision) for work in works])
    assert len({work.key for work in works}) == len(prices) == 1000
    assert all(price.us > 0 and price.source == "learned" for price in prices)
    assert prices[-1].us > prices[0].us
