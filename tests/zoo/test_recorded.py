"""The recorded networks load, are valid, have weights that keep activations finite, and can be planned."""

from __future__ import annotations

import tarfile

import numpy as np
import onnx
import pytest
from reference import run_onnx
from tiers import tiered

import layoutsel
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.errors import InvalidModel
from layoutsel.model import import_model
from layoutsel.model.input_use import uses_of
from layoutsel.references.drawn_inputs import drawn_inputs
from layoutsel.zoo.architectures import ARCHITECTURES
from layoutsel.zoo.families import families_of
from layoutsel.zoo.light_models import LIGHT_MODELS
from layoutsel.zoo.recorded import (
    GRAPHS,
    recorded,
    recorded_graph,
    recorded_names,
    recorded_networks,
)
from layoutsel.zoo.recorded.filling import is_declared

HELD_OUT = (
    "ghostnet", "levit", "mobilevit", "nfnet", "poolformer", "repvgg", "res2net", "visformer",
)  # fmt: skip
"""Families that accuracy is judged on and nothing may be trained on."""
DAILY = ("lcnet_050@160", "bert_mini@128", "edgenext_xx_small@160")
NETWORKS = tuple(f"{name}@{network.sizes[-1]}" for name, network in recorded_networks().items())
"""Each network at its last size."""


def test_archive_holds_the_graphs_of_the_table():
    with tarfile.open(GRAPHS, "r:xz") as archive:
        members = archive.getnames()
    assert sorted(members) == sorted(f"{name}.onnx" for name in recorded_names())


def test_zoo_is_wide_and_small():
    networks = recorded_networks().values()
    assert len(networks) >= 60
    assert len({network.families[0] for network in networks}) >= 40
    assert sum(len(network.sizes) > 1 for network in networks) >= 40
    assert GRAPHS.stat().st_size <= 500_000


def test_held_out_families_are_absent():
    families = {family for one in recorded_networks().values() for family in one.families}
    assert not families & set(HELD_OUT)
    assert not [name for name in recorded_networks() if name.startswith(HELD_OUT)]


def test_families_of_every_zoo():
    names = [*recorded_networks(), *LIGHT_MODELS, *ARCHITECTURES]
    assert len(names) == len(set(names))
    for name in (*LIGHT_MODELS, *ARCHITECTURES):
        assert families_of(name) != (name,) or name in ("shufflenet", "squeezenet", "unet")
    assert families_of("zoo:resnet34@160") == families_of("light:resnet50@8") == ("resnet",)
    assert families_of("model.onnx") == ("model.onnx",)


def dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("name", tiered(recorded_names(), DAILY))
def test_graph_is_valid_with_fixed_shapes(name):
    graph = recorded_graph(name)
    declared = {tensor.name for tensor in graph.graph.initializer if is_declared(tensor)}
    model = recorded(name)
    assert len(declared) >= 4
    assert not any(is_declared(tensor) for tensor in model.graph.initializer)
    onnx.checker.check_model(model, full_check=True)
    for tensor in model.graph.initializer:
        if tensor.name in declared:
            values = onnx.numpy_helper.to_array(tensor)
            assert np.isfinite(values).all()
            assert values.std() > 0 or values.size == 1
    assert all(size > 0 for value in graph.graph.input for size in dims(value))


@pytest.mark.parametrize("name", tiered(NETWORKS, DAILY))
def test_activations_neither_vanish_nor_overflow(name):
    model = recorded(name)
    imported = import_model(model)
    results = []
    for seed in (0, 1):
        values = drawn_inputs(imported.inputs, uses_of(model), seed)
        feeds = {one.name: value for one, value in zip(imported.inputs, values, strict=True)}
        results.append(run_onnx(model, feeds))
    assert all(np.isfinite(result).all() for result in results[0])
    pairs = list(zip(*results, strict=True))
    assert max(np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in pairs) > 1e-3


@pytest.mark.parametrize("name", tiered(NETWORKS, DAILY))
def test_can_be_partitioned(name, tmp_path):
    session = Session.open(f"zoo:{name}", cache=tmp_path / "cache.db")
    offers = Offers.of(session)
    for candidates in offers.candidates.values():
        assert any(decision.unit == "cpu" for decision in candidates.decisions)


@pytest.mark.nightly
@pytest.mark.parametrize("name", DAILY)
def test_compiled_network_agrees_with_onnx_runtime(name):
    compiled = layoutsel.optimize(f"zoo:{name}", cost="roofline", threads=2, verify_speed=False)
    assert compiled.checks
    assert all(one["rel_l2_err"] <= one["tolerance"] for one in compiled.checks)


def test_equal_seeds_give_equal_weights():
    def weights(seed):
        return recorded("lcnet_050", seed).SerializeToString(deterministic=True)

    assert weights(1) == weights(1) != weights(2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", r"no model zoo:resnet: choose one of .*resnet34"),
        ("lcnet_050@7", r"zoo:lcnet_050@7: got size '7'; expected one of 224, 160 \(pixels\)"),
    ],
)
def test_unknown_network_or_size(name, message):
    with pytest.raises(InvalidModel, match=message):
        import_model(f"zoo:{name}")
