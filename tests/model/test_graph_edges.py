"""What leaves a model, as edges: also where its results are a tuple."""

import pytest
from tvm import relax

from layoutsel.model.graph import read_graph
from tvm_passes.expose_logits import ExposeLogits
from tvm_passes.partition import PartitionSubgraphs


def module(*, results, named):
    """``results`` of softmax and its exponential, as a tuple that is an expression or has a name."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 10), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            made = [builder.emit(relax.op.exp(x))]
            made.append(builder.emit(relax.op.nn.softmax(made[0])))
            kept = made[-results:]
            value = relax.Tuple(kept) if results > 1 else kept[0]
            result = builder.emit_output(value) if named else value
            if not named:
                kept = [builder.emit_output(one) for one in kept]
                result = relax.Tuple(kept) if results > 1 else kept[0]
        builder.emit_func_output(result)
    return builder.get()


def leaving(made):
    graph = read_graph(PartitionSubgraphs()(made))
    edges = [edge for edge in graph.edges if edge.consumer is None]
    return [(graph.by_id[edge.producer].anchor, edge.input_index) for edge in edges]


@pytest.mark.parametrize("named", [False, True])
def test_every_result_is_an_edge(named):
    assert leaving(module(results=1, named=named)) == [("nn.softmax", 0)]
    assert leaving(module(results=2, named=named)) == [("elementwise", 0), ("nn.softmax", 1)]


@pytest.mark.parametrize("named", [False, True])
def test_exposed_logits_are_edges(named):
    exposed = ExposeLogits()(module(results=1, named=named))
    assert leaving(exposed) == [("nn.softmax", 0), ("elementwise", 1)]
    exposed = ExposeLogits()(module(results=2, named=named))
    assert leaving(exposed) == [("elementwise", 0), ("nn.softmax", 1), ("elementwise", 2)]
