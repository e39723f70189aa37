"""The kept networks are trained: their accuracy rises with the depth of the exit."""

import numpy as np
import onnx
import onnxruntime
import pytest
from trained_exits import NAMES, network_path, samples_path

from layoutsel.exits.spec import ExitSpec


@pytest.mark.parametrize("name", NAMES)
def test_deeper_exits_are_more_accurate(name):
    session = onnxruntime.InferenceSession(network_path(name), providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    assert outputs == ["exit1", "exit2", "final"]
    with np.load(samples_path(name)) as data:
        inputs, labels = data["x"], data["labels"]
    logits = [session.run(None, {"x": one[None]}) for one in inputs]
    predictions = np.array([[exit_.argmax() for exit_ in each] for each in logits])
    accuracies = (predictions == labels[:, None]).mean(0)
    assert accuracies[0] > 0.85
    assert accuracies[0] < accuracies[1]
    assert accuracies[2] > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_networks_have_a_batch_of_one(name):
    model = onnx.load(network_path(name))
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 1


@pytest.mark.parametrize("name", NAMES)
def test_networks_hold_their_specification(name):
    spec = ExitSpec.embedded(onnx.load(network_path(name)), name)
    assert [exit_.output for exit_ in spec.exits] == ["exit1", "exit2", "final"]
