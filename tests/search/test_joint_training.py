"""Common weights: networks of a space compute the same in PyTorch and as ONNX; the child process."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from joint_spaces import IMAGES, SIGNALS

from layoutsel.device import training
from layoutsel.device.training import TrainingFailed
from layoutsel.device.worker import Worker
from layoutsel.search.early_exits import with_exits
from layoutsel.search.joint.tasks import Retraining, SharedTraining, TrainingSchedule
from layoutsel.search.joint.trainer import JointTrainer
from layoutsel.search.joint.widest import widest_parts
from layoutsel.search.parts import SUM, parts_of
from tvm_passes.errors import LayoutselError

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed (extra train)"
)
SPACES = pytest.mark.parametrize("space", [SIGNALS, IMAGES], ids=["signals", "images"])


@pytest.fixture(scope="module")
def checked():
    """Run a function of joint_cases.py in a child process."""
    limits = {"time_limit_s": 60, "environment": {"OMP_NUM_THREADS": "1"}}
    with Worker("joint_cases:run", **limits) as worker:
        yield lambda name, argument=None: worker.call((name, argument)).value


@needs_torch
@SPACES
@pytest.mark.parametrize("seed", range(4))
def test_an_exported_network_computes_what_was_trained(checked, space, seed):
    assert checked("exported_error", (space, seed)) < 1e-5


@needs_torch
def test_early_exits_are_outputs_in_the_order_of_their_depth(checked):
    names, errors = checked("exits_error", 3)
    assert names == ["exit1", "exit2", "final"]
    assert max(errors) < 1e-5


def test_an_exit_needs_a_part():
    graph = parts_of(SIGNALS, SIGNALS.draw(np.random.default_rng(0)))
    for after in (["nowhere"], ["stem", "stem"], ["head"]):
        with pytest.raises(LayoutselError, match=r"exit after .*expected different ones of stem"):
            with_exits(graph, after)


@needs_torch
@SPACES
def test_a_network_inherits_the_first_channels(checked, space):
    for seed in range(3):
        assert checked("inherited_error", (space, seed)) < 1e-5


@needs_torch
@SPACES
def test_networks_have_their_own_statistics_of_normalisation(checked, space):
    error, is_training = checked("statistics_are_those_of_the_network", (space, 5))
    assert error < 1e-2  # the statistics of a sample's variance differ by a factor of n / (n - 1)
    assert not is_training


@SPACES
def test_common_weights_hold_every_part_of_every_network(space):
    widest = {(name, one.operation): one for name, one in widest_parts(space)}
    random = np.random.default_rng(0)
    for _ in range(50):
        for part in parts_of(space, space.draw(random)).parts:
            if part.signature.operation != SUM:
                held = widest[part.name, part.signature.operation]
                assert held.input_shape[0] >= part.signature.input_shape[0]
                assert held.channels >= part.signature.channels
                assert held.input_shape[1:] == part.signature.input_shape[1:]
                assert held.stride == part.signature.stride


def test_missing_pytorch_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(TrainingFailed, match=r"needs PyTorch.*pip install 'layoutsel\[train\]'"):
        JointTrainer(task(tmp_path))


def task(folder, epochs=2):
    return SharedTraining(
        space=SIGNALS,
        schedule=TrainingSchedule(epochs=epochs, batch=200),
        seed=0,
        threads=1,
        checkpoint=str(folder / "shared.pt"),
    )


@needs_torch
def test_a_training_goes_on_where_it_ended(tmp_path):
    """The passes of an ended process are not repeated, and the result is that of one process."""
    random = np.random.default_rng(0)
    networks = [SIGNALS.draw(random) for _ in range(3)]
    at_once, in_turns = tmp_path / "once", tmp_path / "turns"
    for folder in (at_once, in_turns):
        folder.mkdir()
    passes = []
    with JointTrainer(task(at_once)) as trainer:
        trainer.train(lambda one: passes.append(one.epoch))
        wanted = trainer.accuracies(networks)
    assert passes == [1, 2]

    class Stop(Exception):
        pass

    def stop(_report):
        raise Stop

    with pytest.raises(Stop), JointTrainer(task(in_turns)) as trainer:
        trainer.train(stop)
    passes.clear()
    with JointTrainer(task(in_turns)) as trainer:
        trainer.train(lambda one: passes.append(one.epoch))
        assert trainer.accuracies(networks) == wanted
        assert passes == [2]
        assert len(set(wanted)) > 1
        made = trainer.retrained(
            Retraining(name="net", architecture=networks[0], schedule=TrainingSchedule(epochs=1)),
            lambda one: passes.append(one.network),
        )
    assert passes == [2, "net"]
    assert made.accuracies["tune"] > wanted[0]
    assert set(made.weights) == {part.name for part in parts_of(SIGNALS, networks[0]).parts}


@needs_torch
def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / "shared.pt").write_bytes(b"junk")
    with (
        JointTrainer(task(tmp_path)) as trainer,
        pytest.raises(TrainingFailed, match=r"shared\.pt: not the weights of this search"),
    ):
        trainer.train(lambda _report: None)


@needs_torch
def test_a_time_limit_ends_the_training(tmp_path):
    with (
        JointTrainer(task(tmp_path, epochs=10_000), limit_s=6.0) as trainer,
        pytest.raises(TrainingFailed, match="took more than 6 s"),
    ):
        trainer.train(lambda _report: None)
