"""Stable ids of sub-graphs: from names or content, and numbers for equal ones."""

from __future__ import annotations

import numpy as np
import pytest
from modules import conv, module_of, run, weight
from tvm.relax.op import add, exp, nn, permute_dims, tanh

from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision
from tvm_passes.name_subgraphs import NameSubgraphs, Sources
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.pipeline import lower
from tvm_passes.rewrite_layouts import functions_of
from tvm_passes.short_name import LONGEST, short_name


def partitioned(emit):
    return PartitionSubgraphs()(module_of(emit))


def ids(module, layers=None, nodes=None):
    return list(
        functions_of(NameSubgraphs(Sources(layers=layers or {}, nodes=nodes or {}))(module))
    )


def layers(*seeds):
    """A chain of a convolution for each number and of a pooling for each None."""

    def emit(b, x):
        for seed in seeds:
            pooled = seed is None
            x = b.emit(nn.max_pool2d(x, (3, 3), padding=(1, 1)) if pooled else conv(x, seed=seed))
        return x

    return partitioned(emit)


def test_ids_are_operator_and_hash():
    first, second = ids(layers(1, None))
    assert first.startswith("conv2d_")
    assert second.startswith("max_pool2d_")
    assert all(len(id_.rpartition("_")[2]) == 6 for id_ in (first, second))


@pytest.mark.parametrize("position", range(4))
def test_an_inserted_layer_leaves_the_other_ids(position):
    layout = [1, 2, None]
    after = [*layout[:position], 8, *layout[position:]]
    old, new = ids(layers(*layout)), ids(layers(*after))
    assert new[:position] + new[position + 1 :] == old


@pytest.mark.parametrize("position", range(4))
def test_an_inserted_twin_takes_a_number(position):
    layout = [1, 2, None]
    after = [*layout[:position], 2, *layout[position:]]
    old, new = ids(layers(*layout)), ids(layers(*after))
    assert set(new) == {*old, f"{old[1]}_2"}


def test_layers_of_one_shape_differ_by_their_weights():
    made = ids(layers(1, 2, 3))
    assert len(set(made)) == 3
    assert not any(id_.endswith(("_2", "_3")) for id_ in made)
    assert ids(layers(3, 1)) == [made[2], made[0]]


def test_equal_sub_graphs_without_weights_are_numbered_in_order():
    first, second, third = (id_ for id_ in ids(layers(None, 1, None, None)) if "pool" in id_)
    assert (second, third) == (f"{first}_2", f"{first}_3")


def test_source_nodes_tell_equal_sub_graphs_without_weights_apart():
    def chain(*nodes):
        def emit(b, x):
            for node in nodes:
                x = b.emit(nn.max_pool2d(x, (3, 3), padding=(1, 1)), node)
            return x

        return ids(partitioned(emit), nodes={node: node for node in nodes})

    first, second = chain("n1", "n2")
    assert chain("n0", "n1", "n2")[1:] == [first, second]
    assert chain("n2") == [second], "another number of equal ones"


def test_anchorless_sub_graphs_are_called_after_their_first_operator():
    emit = lambda b, x: permute_dims(b.emit(exp(b.emit(tanh(x)))), [0, 2, 3, 1])  # noqa: E731
    assert [id_.rpartition("_")[0] for id_ in ids(partitioned(emit))] == ["tanh", "permute_dims"]


def test_source_names():
    def emit(b, x):
        y = b.emit(conv(x), "first")
        z = b.emit(nn.relu(b.emit(add(y, weight(1, 16, 1, 1)), "bias")), "act")
        return b.emit(nn.softmax(b.emit(nn.softmax(z), "twice")), "again")

    module = partitioned(emit)
    names = {"bias": "/stem/bias", "act": "/stem/Relu", "twice": "attention", "again": "attention"}
    stem, *others = ids(module, names)
    assert stem == "stem_bias"
    assert [id_.rpartition("_")[0] for id_ in others] == ["attention", others[0]]
    assert others[1] == f"{others[0]}_2"
    assert ids(module, {"first": "input"})[0].startswith("input_"), "tensors are called input.0"
    assert ids(module, {})[0].startswith("conv2d_")


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("/head/Gemm", "head_Gemm"),
        ("/blocks/blocks.0/expand/expand.1/Conv", "blocks_0_expand_1_Conv"),
        ("model/conv 1:0", "model_conv_1_0"),
        ("/b/bb.0/Conv", "b_bb_0_Conv"),
        ("größe", "gr_e"),
        ("___", ""),
        ("層1", ""),
    ],
)
def test_short_names(name, short):
    assert short_name(name) == short


def test_long_names_keep_their_end():
    name = "StatefulPartitionedCall/model/block_{}_project/depthwise/Conv2D"
    first, second = short_name(name.format(1)), short_name(name.format(2))
    assert first.startswith("project_depthwise_Conv2D_")
    assert first != second
    assert len(first) <= LONGEST + 5
    assert first[0].isalpha()


def test_naming_changes_no_value_and_is_idempotent():
    module = layers(1, None, None)
    named = NameSubgraphs()(module)
    x = np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype("float32")
    np.testing.assert_array_equal(run(named, x)[0], run(module, x)[0])
    assert list(functions_of(NameSubgraphs()(named))) == list(functions_of(named))
    assert set(functions_of(module)) == {"s0", "s1", "s2"}, "the pass changes no input"


def test_numbers_and_ids_decide_alike():
    module = layers(1, None)
    named = NameSubgraphs()(module)
    plan = [Decision.parse("cpu:NHWC"), Decision.parse("cpu:NCHW")]
    lowered = [
        lower(one, dict(zip(functions_of(one), plan, strict=True)), host_target())
        for one in (module, named)
    ]
    kernels = [{gv.name_hint for gv in one.functions} for one in lowered]
    assert kernels[0] == kernels[1]
