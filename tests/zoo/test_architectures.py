"""The further architectures are the published networks, run, and can be planned."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from reference import random_feeds, run_onnx
from tiers import tiered

from layoutsel.compile.make_plan import priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.device.signature import Signature
from layoutsel.errors import InvalidModel
from layoutsel.model import import_model
from layoutsel.zoo.architectures import ARCHITECTURES, architecture

PUBLISHED = {
    "bert_base_6l": 66_364_416 - (512 - 128) * 768,  # positions beyond the last token left out
    "convnext_tiny": 28_589_128,
    "efficientnet_b0": 5_288_548,
    "mixer_s16": 18_528_264,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "regnet_y": 6_432_512,
    "resnext50_32x4d": 25_028_904,
    "unet": 7_763_041,
    "vit_small_16": 22_050_664,
    "yolo_tiny": 1_872_157,
}
"""Trainable parameters, as torchvision, timm, transformers and the authors of the others count them."""

DAILY = ("efficientnet_b0", "mobilenet_v2", "mobilenet_v3_large", "yolo_tiny")


def trainable(model):
    """Number of parameters of `model`: statistics, shapes and factors are none."""
    fixed = {
        name
        for node in model.graph.node
        if node.op_type == "BatchNormalization"
        for name in node.input[3:]
    }
    fixed |= {name for node in model.graph.node if node.op_type == "Resize" for name in node.input}
    return sum(
        int(np.prod(tensor.dims))
        for tensor in model.graph.initializer
        if tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT and tensor.name not in fixed
    )


def signatures(model):
    return [
        Signature(
            name=value.name,
            shape=tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
            dtype="float32"
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
            else "int64",
        )
        for value in model.graph.input
    ]


@pytest.mark.parametrize("name", tiered(ARCHITECTURES, DAILY))
def test_runs_and_is_as_published(name):
    model = architecture(name)
    onnx.checker.check_model(model, full_check=True)
    assert trainable(model) == PUBLISHED[name]
    inputs = signatures(model)
    (first,), (second,) = (run_onnx(model, random_feeds(inputs, seed)) for seed in (0, 1))
    declared = model.graph.output[0].type.tensor_type.shape.dim
    assert first.shape == tuple(dim.dim_value for dim in declared)
    assert np.isfinite(first).all()
    assert 0.01 < first.std() < 100
    assert np.linalg.norm(first - second) > 0.01 * np.linalg.norm(first)


@pytest.mark.parametrize("name", tiered(ARCHITECTURES, DAILY))
def test_can_be_planned(name, tmp_path):
    session = Session.open(f"arch:{name}", cache=tmp_path / "cache.db")
    offers = Offers.of(session)
    assert session.model.name == name
    for candidates in offers.candidates.values():
        assert any(decision.unit == "cpu" for decision in candidates.decisions)
    problem = priced_problem(offers, "roofline")
    assert {node.id for node in problem.nodes} == set(session.graph.by_id)


def test_equal_seeds_give_equal_models():
    def weights(seed):
        return architecture("mobilenet_v2", seed).SerializeToString(deterministic=True)

    assert weights(1) == weights(1) != weights(2)


def test_unknown_architecture():
    with pytest.raises(InvalidModel, match=r"no model arch:resnet: choose one of .*unet"):
        import_model("arch:resnet")
