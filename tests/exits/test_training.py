"""Training in a child process: files, limits, and the parts that need PyTorch."""

import importlib.util
import json
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest

from layoutsel.core.exit_codes import INTERRUPTED
from layoutsel.device import training
from layoutsel.device.training import TrainingFailed
from layoutsel.device.worker import Worker
from layoutsel.exits.training.settings import SETTINGS, TrainingTask
from layoutsel.exits.training.train import train
from tvm_passes.errors import LayoutselError

HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed (extra train)")
TINY = TrainingTask(data="mnist1d", size="tiny")


@pytest.fixture(scope="module")
def checked():
    """Run a function of training_cases.py in a child process."""
    limits = {"time_limit_s": 60, "environment": {"OMP_NUM_THREADS": "1"}}
    with Worker("training_cases:run", **limits) as worker:
        yield lambda name, argument=None: worker.call((name, argument)).value


def test_missing_pytorch_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(TrainingFailed, match=r"needs PyTorch.*pip install 'layoutsel\[train\]'"):
        train(TINY, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ({"data": "mnist1d", "size": "huge"}, "size 'huge': expected one of mnist5k tiny"),
        ({"data": "mnist1d", "threads": 0}, "0 threads: expected 1 or more"),
        ({"data": "mnist1d", "hidden": 0}, "0 hidden channels: expected 1 or more"),
    ],
)
def test_bad_tasks_are_rejected(task, told):
    with pytest.raises(LayoutselError, match=told):
        TrainingTask(**task)


@pytest.mark.parametrize("key", SETTINGS, ids=" ".join)
def test_exits_are_before_the_last_block(key):
    shape = SETTINGS[key].shape
    assert list(shape.exits) == sorted(set(shape.exits))
    assert 0 < shape.exits[0] <= shape.exits[-1] < len(shape.blocks)
    assert len(shape.cut(0).blocks) == shape.exits[0]


@needs_torch
def test_training_writes_network_data_and_report(tmp_path):
    program = (
        "import sys; from pathlib import Path; from layoutsel.exits.training.train import train\n"
        "from layoutsel.exits.training.settings import TrainingTask\n"
        "train(TrainingTask(data='mnist1d', size='tiny'), Path(sys.argv[1]))\n"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "False"
    report = json.loads((tmp_path / "training.json").read_text())
    (network,) = report["networks"]
    with np.load(tmp_path / "test.npz") as data:
        inputs, labels = data["x"], data["labels"]
    session = onnxruntime.InferenceSession(tmp_path / network["file"])
    logits = [session.run(None, {"x": one[None]}) for one in inputs]
    predictions = np.array([[exit_.argmax() for exit_ in each] for each in logits])
    # A sample between two classes may change its side.
    wanted = pytest.approx(network["test_accuracies"], abs=2 / len(labels))
    assert (predictions == labels[:, None]).mean(0) == wanted
    assert network["test_accuracies"][-1] > 0.95
    (entry,) = onnx.load(tmp_path / network["file"]).metadata_props
    assert [one["name"] for one in json.loads(entry.value)["exits"]] == ["exit1", "exit2", "final"]
    recipe = SETTINGS["mnist1d", "tiny"].recipe
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, recipe.epochs + 1))
    assert lines[-1]["phase"] == "joint"


@needs_torch
def test_a_long_training_is_ended(tmp_path):
    start = time.monotonic()
    with pytest.raises(TrainingFailed, match=r"took more than 0\.5 s"):
        train(TrainingTask(data="mnist5k", size="large"), tmp_path, limit_s=0.5)
    assert time.monotonic() - start < 60


@needs_torch
def test_a_training_without_memory_is_an_error(tmp_path):
    with pytest.raises(LayoutselError, match="emory"):
        train(TrainingTask(data="mnist5k", size="large"), tmp_path, memory_bytes=400 << 20)


@needs_torch
def test_ctrl_c_ends_the_training(tmp_path):
    options = ["--data", "mnist5k", "--size", "large", "-o", tmp_path]
    command = [sys.executable, "-m", "layoutsel", "exits", "train", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not (children := psutil.Process(process.pid).children()):
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1].strip() == "layoutsel: error: interrupted"
    assert process.returncode == INTERRUPTED
    assert not psutil.wait_procs(children, timeout=10)[1]


@needs_torch
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_exits_compute_what_their_heads_say(checked, axes):
    assert max(checked("exits_compute_what_their_heads_say", axes)) < 1e-6


@needs_torch
@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("missing", "no submodule 'third'; expected one of first, normalised, second"),
        ("twice", "'first' is named twice"),
        ("flat", "'flat' has an output of shape (2, 405); expected (N, channels, axes)"),
        ("runs twice", "'part' gave 2 outputs in one run; expected one tensor"),
        ("no tensor", "'part' gave tuple in one run"),
        ("no logits", "output has shape (2, 4, 9, 9); expected logits"),
    ],
)
def test_bad_places_are_rejected(checked, case, told):
    assert told in checked("rejected", case)


@needs_torch
def test_phases_train_their_parts(checked):
    first, again = checked("phases_train_their_parts")
    changes, losses = first
    assert changes == [[True, False], [True, True]]
    assert [phase for phase, _ in losses] == ["backbone", "joint"]
    assert again == first


@needs_torch
@pytest.mark.parametrize("hidden", [None, 4])
def test_exported_networks_compute_the_same(checked, hidden):
    worst, outputs = checked("exported_and_own_logits", hidden)
    assert worst < 1e-5
    assert outputs == [("exit1", [1, 3]), ("exit2", [1, 3]), ("final", [1, 3])]


@needs_torch
@pytest.mark.parametrize(("most", "shifts"), [((0, 0), 1), ((1, 2), 15), ((0, 3), 7)])
def test_inputs_are_moved_by_all_shifts(checked, most, shifts):
    assert checked("all_shifts", most) == (shifts, True)


@needs_torch
def test_a_failing_listener_ends_the_training(tmp_path):
    def fail(_report):
        raise RuntimeError("listener")

    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(RuntimeError, match="listener"):
        train(TINY, tmp_path, progress=fail)
    assert {child.pid for child in psutil.Process().children()} <= before
