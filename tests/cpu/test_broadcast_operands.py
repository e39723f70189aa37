"""What follows a matrix product, or rows of numbers, may be broadcast along any of their axes."""

import pytest
from tvm import relax

from tests.cpu.support import TOLERANCE, error, model, weights
from tvm_passes.cpu import generic
from tvm_passes.decision import Decision
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import subgraph_id

PLAIN = Decision(unit="cpu")
OPERANDS = [
    (1, 3, 5, 16),
    (4, 1, 5, 16),
    (4, 1, 1, 16),
    (1, 3, 1, 1),
    (4, 1, 5, 1),
    (5, 1),
    (16,),
    (4, 3, 5, 16),
    (1, 1, 1, 1),
]


def has_kernels(body, *shapes):
    functions = PartitionSubgraphs()(model(body, *shapes)).functions.values()
    return not any(generic(one, PLAIN) for one in functions if subgraph_id(one))


@pytest.mark.parametrize("operand", OPERANDS, ids=str)
def test_products_of_matrices(operand):
    shapes = [(4, 3, 5, 8), (4, 3, 8, 16), operand]

    def body(a, b, r):
        return relax.op.nn.relu(relax.op.add(relax.op.matmul(a, b), r))

    assert has_kernels(body, *shapes)
    assert error(body, shapes, PLAIN) <= TOLERANCE


@pytest.mark.parametrize("operand", OPERANDS, ids=str)
def test_products_with_one_matrix(operand):
    shapes = [(4, 3, 5, 8), operand]

    def body(a, r):
        return relax.op.add(relax.op.matmul(a, weights(8, 16)), r)

    assert has_kernels(body, *shapes)
    assert error(body, shapes, PLAIN) <= TOLERANCE


@pytest.mark.parametrize("operand", [(4, 1, 16), (1, 5, 16), (4, 1, 1), (1, 5, 1)], ids=str)
def test_sequences(operand):
    shapes = [(4, 5, 8), operand]

    def body(a, r):
        return relax.op.add(relax.op.matmul(a, weights(8, 16)), r)

    assert has_kernels(body, *shapes)
    assert error(body, shapes, PLAIN) <= TOLERANCE


@pytest.mark.parametrize("width", [1, 16])
@pytest.mark.parametrize("operand", [(2, 1, 3, 1, 1), (1, 4, 1, 5, 1), (4, 3, 1, 1)], ids=str)
def test_element_wise_operators(operand, width):
    shapes = [(2, 4, 3, 5, width), operand]

    def body(x, r):
        return relax.op.nn.relu(relax.op.multiply(x, r))

    assert has_kernels(body, *shapes)
    assert error(body, shapes, PLAIN) <= TOLERANCE


@pytest.mark.parametrize("operand", [(4, 1, 16), (1, 5, 1)], ids=str)
def test_softmax(operand):
    shapes = [(4, 5, 16), operand]

    def body(x, r):
        return relax.op.multiply(relax.op.nn.softmax(x, axis=-1), r)

    assert error(body, shapes, PLAIN) <= TOLERANCE
