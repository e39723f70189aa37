"""A layer that is inserted anywhere in a network leaves the ids of all sub-graphs that it does not touch."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tiers import examples, tiered

from layoutsel.compile.session import Session
from layoutsel.model import import_model
from layoutsel.model.graph import read_graph
from layoutsel.model.source_names import identifies
from layoutsel.zoo.light_models import light_model
from tvm_passes.arrays import array_of
from tvm_passes.cancel_transforms import CancelTransforms
from tvm_passes.ir import Constant
from tvm_passes.name_subgraphs import NameSubgraphs, Sources, subgraph_calls
from tvm_passes.partition import PartitionSubgraphs

EXPORTED = Path(__file__).parents[1] / "data" / "exported"
NAMES = sorted(file.stem for file in EXPORTED.glob("*_[ld]*[yo].onnx"))
"""Networks whose nodes have names with scopes (legacy), or are numbered (dynamo)."""
DAILY = {"resnet_legacy", "resnet_dynamo", "densenet_dynamo"}
KINDS = ("product", "Erf")
"""Layers to insert: with weights, and without."""
MOST_TOUCHED = 4
"""Maximum number of sub-graphs whose own function changes; most insertions change one."""

Identity = tuple[tuple[str, ...], str, str]
"""Source names, function and weights of a sub-graph."""


def exported(name: str) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load(EXPORTED / f"{name}.onnx"))


def subgraphs(model: onnx.ModelProto) -> Iterator[tuple[Identity, str]]:
    imported = import_model(model)
    module = PartitionSubgraphs()(CancelTransforms()(imported.module))
    module = NameSubgraphs(Sources(layers=imported.layer_names, nodes=imported.origins))(module)
    graph = read_graph(module, imported.origins)
    for subgraph, binding in zip(graph.subgraphs, subgraph_calls(module), strict=True):
        weights = [array_of(a).tobytes() for a in binding.value.args if isinstance(a, Constant)]
        digest = hashlib.sha256(b"|".join(weights)).hexdigest()
        yield (subgraph.names, subgraph.structural_hash, digest), subgraph.id


def places(model: onnx.ModelProto) -> list[tuple[str, list[int]]]:
    """Tensors of float32 between nodes, with their shapes."""
    computed = {name for node in model.graph.node for name in node.output}
    computed -= {value.name for value in model.graph.output}
    found = []
    for value in model.graph.value_info:
        ty = value.type.tensor_type
        shape = [dim.dim_value for dim in ty.shape.dim]
        is_float = ty.elem_type == TensorProto.FLOAT
        if is_float and value.name in computed and len(shape) > 1 and all(shape):
            found.append((value.name, shape))
    return found


def with_layer(model: onnx.ModelProto, place: tuple[str, list[int]], kind: str) -> onnx.ModelProto:
    """A copy in which all consumers of a tensor read what a further layer makes of it."""
    tensor, shape = place
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes = list(changed.graph.node)
    (after,) = (i for i, node in enumerate(nodes) if tensor in node.output)
    for node in nodes:
        node.input[:] = ["inserted" if name == tensor else name for name in node.input]
    operands, attributes = [tensor], {}
    if kind == "product":
        rank4 = len(shape) == 4
        kind, size = ("Conv", shape[1]) if rank4 else ("MatMul", shape[-1])
        weight = np.random.default_rng(7).standard_normal((size, size)) / size
        weight = weight.astype("float32").reshape(size, size, *([1, 1] if rank4 else []))
        changed.graph.initializer.append(numpy_helper.from_array(weight, "inserted_weight"))
        operands.append("inserted_weight")
    nodes.insert(after + 1, helper.make_node(kind, operands, ["inserted"], **attributes))
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def check(
    model: onnx.ModelProto,
    before: dict[Identity, str],
    place: tuple[str, list[int]],
    kind: str,
) -> None:
    found = list(subgraphs(with_layer(model, place, kind)))
    after = dict(found)
    assert len({id_ for _, id_ in found}) == len(found)
    untouched = before.keys() & after.keys()
    assert len(untouched) >= len(before) - MOST_TOUCHED
    assert not {before[one]: after[one] for one in untouched if before[one] != after[one]}, place


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", tiered(NAMES, DAILY))
def test_inserted_anywhere(name, kind):
    model = exported(name)
    before, found = dict(subgraphs(model)), places(model)
    assert len(found) > 5
    for place in found:
        check(model, before, place, kind)


@pytest.fixture(scope="module")
def networks() -> dict[str, tuple[onnx.ModelProto, dict[Identity, str]]]:
    models = {name: exported(name) for name in ("vit_dynamo", "bert_legacy", "unet_dynamo")}
    models["squeezenet"] = onnx.shape_inference.infer_shapes(light_model("squeezenet"))
    return {name: (model, dict(subgraphs(model))) for name, model in models.items()}


@settings(max_examples=examples(12), deadline=None)
@given(data=st.data())
def test_inserted_somewhere_in_a_larger_network(networks, data):
    model, before = networks[data.draw(st.sampled_from(sorted(networks)))]
    place = data.draw(st.sampled_from(places(model)))
    check(model, before, place, data.draw(st.sampled_from(KINDS)))


PRINTING = """
import sys
from layoutsel.compile.session import Session
for source in sys.argv[1:]:
    print(*Session.open(source, threads=1).graph.ids)
"""


def test_every_process_gives_the_same_ids(tmp_path):
    sources = [str(EXPORTED / "vit_dynamo.onnx"), str(EXPORTED / "resnet_legacy.onnx")]
    told = {
        subprocess.run(
            [sys.executable, "-c", PRINTING, *sources],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    (text,) = told
    own = [" ".join(Session.open(source, threads=1).graph.ids) for source in sources]
    assert text.splitlines() == own
    assert all(id_.isidentifier() for line in own for id_ in line.split())


def test_other_weights_leave_the_ids_of_named_layers():
    one, other = (
        Session.open(
            str(EXPORTED / f"resnet_dynamic{seed}.onnx"), shapes={"x": (1, 3, 32, 32)}, threads=1
        )
        for seed in ("", "_seed1")
    )
    assert one.model.content_hash != other.model.content_hash
    assert one.graph.ids == other.graph.ids


@pytest.mark.parametrize(
    ("name", "operator", "expected"),
    [
        ("Conv_12", "Conv", False),
        ("node_conv2d_3", "Conv", False),
        ("node_linear", "Gemm", False),
        ("max_pool2d_1", "MaxPool", False),
        ("/MaxPool_1", "MaxPool", False),
        ("n12", "Relu", False),
        ("r0_out", "Relu", False),
        ("407", "Add", False),
        ("ReLU_3", "Relu", False),
        ("/a/Conv", "Conv", True),
        ("resnetv17_stage1_conv0_fwd", "Conv", True),
        ("classify", "Gemm", True),
    ],
)
def test_positions_identify_no_layer(name, operator, expected):
    assert identifies(name, operator) is expected
