"""A trained network answers samples as its policy says, on one worker and on two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from layoutsel import exits
from layoutsel.exits.arrangement import Arrangement, WorkerKind
from layoutsel.exits.costs import priced
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_code import compiled_for
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.policy import Policy
from layoutsel.exits.scores import RESULTS

DATA = Path(__file__).parents[1] / "data" / "exits"
SAMPLES = 120
WORKERS = tuple(WorkerKind(name=name, unit="cpu", threads=1, cores=0) for name in ("cpu-1", "b"))


@pytest.fixture(scope="module")
def network():
    return exits.read(DATA / "mnist1d.onnx")


@pytest.fixture(scope="module")
def compiled(network):
    found = priced(network, units=["cpu"], cost="roofline")
    return compiled_for(network, found, 1)


@pytest.fixture(scope="module")
def samples(compiled):
    return np.load(DATA / "mnist1d.npz")["x"][:SAMPLES].reshape(-1, *compiled.inputs[0].shape)


@pytest.fixture(scope="module")
def matrix(network, samples):
    """Observations by ONNX Runtime."""
    session = onnxruntime.InferenceSession(
        network.scored().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: x}) for x in samples]
    return ExitMatrix(
        exits=network.names,
        score=network.score,
        scores=np.array([np.concatenate(row[1::RESULTS]) for row in rows], np.float64),
        predictions=np.array([np.concatenate(row[2::RESULTS]) for row in rows], np.int64),
    )


@pytest.mark.parametrize("patience", [None, 2])
@pytest.mark.parametrize("worker", ["cpu-1", "b"])
def test_answers_are_the_policys(network, compiled, samples, matrix, worker, patience):
    early = len(network.names) - 1
    policy = Policy(score=network.score, thresholds=(0.9,) * early + (None,), patience=patience)
    sure = np.column_stack((policy.sure(matrix), np.ones(SAMPLES, bool)))
    first = sure.argmax(axis=1)
    near = (np.abs(matrix.scores[:, :early] - 0.9) < 1e-4).any(axis=1)
    assert len(set(first)) == early + 1
    assert near.sum() < SAMPLES / 10
    arrangement = Arrangement(trunk="cpu-1", branches=(worker,) * early)
    for answer in ("ordered", "first"):
        with ExitModel(
            compiled, network.names, arrangement, policy, workers=WORKERS, answer=answer
        ) as model:
            for index in np.flatnonzero(~near):
                found = model(samples[index])
                exit_ = network.names.index(found.exit)
                assert sure[index, exit_]
                assert found.label == matrix.predictions[index, exit_]
                if answer == "ordered":
                    assert exit_ == first[index]
