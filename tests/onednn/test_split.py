"""Products of precision split-bf16: nearly as exact as float32's, from pairs of bfloat16."""

from __future__ import annotations

import pytest
from networks import arrays, functions, merged, network, run_lowered, run_reference, weight
from test_fusion import ONE_PRIMITIVE
from test_operators import CONVOLUTIONS, OTHER
from test_operators import IMAGE as ODD_IMAGE
from tvm.relax import op

from tests.reference import relative_error
from tvm_passes.cpu.host import has_bf16, host_target
from tvm_passes.decision import Decision
from tvm_passes.errors import BuildError
from tvm_passes.lift_weights import LiftWeights
from tvm_passes.onednn import available, supports
from tvm_passes.onednn.lower import LowerOnednn, emit_partition
from tvm_passes.partition import PartitionSubgraphs

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.skipif(not has_bf16(host_target()), reason="a CPU without AVX512_BF16"),
]

IMAGE = (1, 32, 8, 8)
TOLERANCE = 1e-5
"""The two halves hold 16 bits of the significand; low times low is left out."""


def split(layout="NHWC"):
    return Decision(unit="onednn", layout=layout, precision="split-bf16")


def check(body, shapes, *choices):
    module = network(body, *shapes)
    inputs = arrays(*shapes)
    results = run_lowered(module, inputs, *choices)
    for result, expected in zip(results, run_reference(module, inputs), strict=True):
        assert relative_error(result, expected) < TOLERANCE


def declines(body, shapes, decision):
    """Why oneDNN does not run `body` under `decision`."""
    partitioned = PartitionSubgraphs()(network(body, *shapes))
    found = (supports(function, decision) for function in functions(partitioned).values())
    return [decline for decline in found if decline is not None]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "name", sorted(CONVOLUTIONS.keys() - {"grouped", "depthwise", "transposed"})
)
def test_convolution(name, layout):
    check(CONVOLUTIONS[name], [ODD_IMAGE], split(layout))


@pytest.mark.parametrize("name", ["fully_connected", "fully_connected_batch", "matmul_3d"])
def test_matmul(name):
    check(*OTHER[name], split("NCHW"))


def test_matmul_over_an_image_that_lies_otherwise():
    check(lambda x: op.matmul(x, weight(40, 24)), [(1, 5, 6, 40)], split("NHWC"))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", ONE_PRIMITIVE)
def test_what_follows_a_product(name, layout):
    if (name, layout) == ("silu", "NCHW"):
        (decline,) = declines(ONE_PRIMITIVE[name], [IMAGE], split(layout))
        assert decline.got == "implementation x64:gemm:jit", "which crawls with a Swish behind it"
    else:
        check(ONE_PRIMITIVE[name], [IMAGE], split(layout))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_an_operand_that_is_read_twice_behind_a_product(layout):
    def body(x):
        return op.add(op.add(op.nn.conv2d(x, weight(32, 32, 1, 1)), x), x)

    check(body, [IMAGE], split(layout))


def two_blocks(x):
    for seed in (1, 2):
        y = op.nn.relu(op.nn.conv2d(x, weight(32, 32, 3, 3, seed=seed), padding=1))
        x = op.nn.relu(op.add(op.nn.conv2d(y, weight(32, 32, 1, 1, seed=seed)), x))
    return x


def test_chain_is_one_partition_of_halves():
    check(two_blocks, [IMAGE], split())
    graph = emit_partition("p0", merged(network(two_blocks, IMAGE), split())["p0"])
    products = [node for node in graph.nodes if node.op == "convolution"]
    assert [node.inputs[0].shape[1] for node in products] == [96] * 4
    assert {node.inputs[0].dtype for node in products} == {"bfloat16"}
    assert {node.output.dtype for node in products} == {"float32"}


def test_precisions_mix():
    choices = [
        split(),
        Decision(unit="onednn", layout="NCHW16c"),
        split("NCHW"),
        Decision(unit="onednn", layout="NHWC"),
    ]
    check(two_blocks, [IMAGE], *choices)


DECLINES = {
    "groups": (CONVOLUTIONS["grouped"], [ODD_IMAGE], "NHWC", "one group"),
    "transposed": (CONVOLUTIONS["transposed"], [ODD_IMAGE], "NHWC", "a convolution or matmul"),
    "pooling": (lambda x: op.nn.max_pool2d(x, [2, 2]), [IMAGE], "NHWC", "a convolution or matmul"),
    "packed": (CONVOLUTIONS["3x3"], [ODD_IMAGE], "NCHW32c", "NCHW or NHWC"),
    "activations": (*OTHER["matmul_activations"], "NCHW", "one right-hand matrix"),
}


@pytest.mark.parametrize("name", DECLINES)
def test_declines(name):
    body, shapes, layout, expected = DECLINES[name]
    (decline,) = declines(body, shapes, split(layout))
    assert expected in decline.expected
    assert decline.operator


def test_weights_must_be_known():
    module = LiftWeights()(merged(network(CONVOLUTIONS["3x3"], ODD_IMAGE), split()))
    with pytest.raises(BuildError, match="expected a constant"):
        LowerOnednn()(module)
