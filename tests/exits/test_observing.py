"""Observed exits against numpy, and samples that do not fit."""

import numpy as np
import onnx
import onnxruntime
import pytest
from trained_exits import NAMES, network_path, samples_path

from layoutsel.exits import observing
from layoutsel.exits.calibrating import calibrate
from layoutsel.exits.matrix import MatrixError
from layoutsel.exits.network import read
from layoutsel.exits.observing import observe
from layoutsel.exits.scores import SCORES


@pytest.fixture(scope="module")
def network():
    return read(network_path(NAMES[0]))


@pytest.fixture
def arrays():
    with np.load(samples_path(NAMES[0])) as data:
        return {name: array[:40] for name, array in data.items()}


def saved(folder, arrays):
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


@pytest.mark.parametrize("score", SCORES)
def test_scores_and_predictions_are_those_of_the_logits(
    network, arrays, tmp_path, score, monkeypatch
):
    monkeypatch.setattr(observing, "_MOST_BYTES", 7 * arrays["x"][0].nbytes)  # in several parts
    seen = observe(network, saved(tmp_path, arrays), score=score)
    session = onnxruntime.InferenceSession(
        network_path(NAMES[0]), providers=["CPUExecutionProvider"]
    )
    outputs = [exit_.output for exit_ in network.spec.exits]
    logits = np.array([session.run(outputs, {"x": one[None]}) for one in arrays["x"]])[:, :, 0]
    power = np.exp(logits - logits.max(axis=2, keepdims=True))
    probabilities = power / power.sum(axis=2, keepdims=True)
    wanted = [SCORES[score].of(probabilities[:, i]) for i in range(len(outputs))]
    assert seen.exits == network.names
    np.testing.assert_allclose(seen.scores, np.transpose(wanted), atol=2e-6)
    np.testing.assert_array_equal(seen.predictions, logits.argmax(axis=2))
    np.testing.assert_array_equal(seen.labels, arrays["labels"])


def test_labels_are_optional(network, arrays, tmp_path):
    del arrays["labels"]
    assert observe(network, saved(tmp_path, arrays)).labels is None


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_network_is_calibrated(name):
    matrix = observe(read(network_path(name)), samples_path(name))
    found = calibrate(matrix, max_drop=0.1, confidence=0.9)
    assert found.certificate.bound <= 0.1
    assert found.sure(matrix).any(axis=1).mean() > 0.2
    assert found.losses(matrix).mean() < 0.1


WRONG = {
    "array 'z' is no input of the model, which takes x": {"z": np.zeros(40)},
    "expected float32 of shape": {"x": np.zeros((40, 1, 1, 3), np.float32)},
    "expected integers of shape (40,)": {"labels": np.zeros(39, np.int64)},
    "got float64 of shape (40,); expected integers": {"labels": np.zeros(40)},
    "got 10 for sample 3; expected classes from 0 to 9": {
        "labels": np.full(40, [0] * 3 + [10] * 37)
    },
    "got -1 for sample 0": {"labels": np.full(40, -1)},
}


@pytest.mark.parametrize("message", WRONG)
def test_samples_that_do_not_fit_are_named(network, arrays, tmp_path, message):
    with pytest.raises(MatrixError) as error:
        observe(network, saved(tmp_path, {**arrays, **WRONG[message]}))
    assert message in str(error.value)


def test_no_file_is_named(network, tmp_path):
    with pytest.raises(MatrixError, match="cannot read"):
        observe(network, tmp_path / "none.npz")


def test_the_time_limit_holds(network, arrays, tmp_path):
    with pytest.raises(MatrixError, match=r"did not compute 40 samples: ran longer than"):
        observe(network, saved(tmp_path, arrays), time_limit_s=1e-3)


def test_nan_scores_stay_and_count_as_unsure(arrays, tmp_path):
    model = onnx.load(network_path(NAMES[0]))
    arrays["x"][5] = np.nan
    matrix = observe(read(model), saved(tmp_path, arrays))
    assert np.isnan(matrix.scores[5]).all()
    assert not np.isnan(matrix.scores[:5]).any()
