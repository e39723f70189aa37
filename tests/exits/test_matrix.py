"""Observations of exits: files, forms of other programs, and wrong values."""

import re

import numpy as np
import pytest

from layoutsel.exits.matrix import ExitMatrix, MatrixError

SCORES = np.array([[0.25, 0.5], [np.nan, 1.0], [1.0, 0.0]])
PREDICTIONS = np.array([[3, 3], [0, 1], [2, 2]])


def matrix(**changes):
    fields = {
        "exits": ("early", "final"),
        "score": "margin",
        "scores": SCORES,
        "predictions": PREDICTIONS,
        "labels": np.array([3, 1, 0]),
    }
    return ExitMatrix(**{**fields, **changes})


@pytest.mark.parametrize("labels", [None, np.array([3, 1, 0])])
def test_a_file_holds_everything(tmp_path, labels):
    made = matrix(labels=labels)
    made.save(tmp_path / "m.npz")
    read = ExitMatrix.load(tmp_path / "m.npz")
    assert (read.exits, read.score) == (made.exits, made.score)
    np.testing.assert_array_equal(read.scores, SCORES)
    np.testing.assert_array_equal(read.predictions, PREDICTIONS)
    assert (read.labels is None) if labels is None else (read.labels == labels).all()
    assert read.data_hash() == made.data_hash()


def test_the_hash_covers_every_array():
    other = PREDICTIONS.copy()
    other[2, 1] = 1
    hashes = {
        matrix().data_hash(),
        matrix(scores=np.nan_to_num(SCORES)).data_hash(),
        matrix(predictions=other).data_hash(),
        matrix(labels=None).data_hash(),
        matrix(labels=np.array([3, 1, 2])).data_hash(),
        matrix().part(np.array([1, 0, 2])).data_hash(),
    }
    assert len(hashes) == 6


def test_right_and_wrong_answers_of_another_program(tmp_path):
    conf = np.array([[0.5, 0.75, 0.25], [0.5, 1.0, 0.125]], np.float32)
    acc = np.array([[1, 0, 1], [True, True, False]])
    np.savez(tmp_path / "apparate.npz", conf=conf, acc=acc)
    read = ExitMatrix.load(tmp_path / "apparate.npz")
    assert read.exits == ("exit1", "exit2", "final")
    np.testing.assert_array_equal(read.scores[:, :2], conf.T)
    np.testing.assert_array_equal(read.misleading, acc.T == 0)


def test_misleading_are_wrong_answers_where_the_final_exit_is_right():
    assert matrix().misleading.tolist() == [[False], [True], [False]]
    # Without labels, the final exit counts as right.
    assert matrix(labels=None).misleading.tolist() == [[False], [True], [False]]
    assert matrix(labels=np.array([0, 1, 2])).misleading.tolist() == [[False], [True], [False]]


WRONG = {
    "at least one exit before the final": {
        "exits": ("final",),
        "scores": SCORES[:, :1],
        "predictions": PREDICTIONS[:, :1],
    },
    "expected different names": {"exits": ("final", "final")},
    r"scores of shape \(3, 2\); expected \(N, 3\)": {"exits": ("a", "b", "final")},
    "got no samples": {
        "scores": SCORES[:0],
        "predictions": PREDICTIONS[:0],
        "labels": np.zeros(0, np.int64),
    },
    "scores of type float32": {"scores": SCORES.astype(np.float32)},
    r"score 1.5 of sample 1 at the exit 'early'": {"scores": np.array([[0, 0], [1.5, 0], [0, 0]])},
    r"score inf of sample 0 at the exit 'final'": {
        "scores": np.array([[0, np.inf], [0, 0], [0, 0]])
    },
    r"predictions of int64 \(2, 2\); expected int64 \(3, 2\)": {"predictions": PREDICTIONS[:2]},
    "predictions of float64": {"predictions": PREDICTIONS.astype(float)},
    "class -1 in labels": {"labels": np.array([0, -1, 1])},
    r"labels of int64 \(2,\); expected int64 \(3,\)": {"labels": np.array([0, 1])},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_values_are_named(message):
    with pytest.raises(MatrixError, match=message):
        matrix(**WRONG[message])


def _own(**changes):
    fields = {
        "format": "layoutsel.exit-matrix",
        "version": 1,
        "exits": ["a", "b"],
        "score": "margin",
        "scores": SCORES,
        "predictions": PREDICTIONS,
    }
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


FILES = {
    "got the arrays x; expected format": {"x": np.zeros(3)},
    "expected predictions as well": _own(predictions=None),
    "got other version 1; expected layoutsel.exit-matrix": _own(format="other"),
    "version 2; expected layoutsel.exit-matrix version 1. The file is newer": _own(version=2),
    "scores of type <U1; expected numbers": _own(scores=np.array([["a"]])),
    "predictions of type float64; expected integers": _own(predictions=np.zeros((3, 2))),
    "labels of type object": _own(labels=np.array([{}, {}, {}])),
    "expected one shape (early exits, samples)": {"conf": np.zeros((2, 3)), "acc": np.zeros(3)},
    "answers (acc) other than 0 and 1": {"conf": np.zeros((1, 3)), "acc": np.full((1, 3), 2)},
}


@pytest.mark.parametrize("message", FILES)
def test_a_wrong_file_is_named(tmp_path, message):
    file = tmp_path / "wrong.npz"
    np.savez(file, **FILES[message])
    expected = "not a valid .npz file" if "object" in message else message
    with pytest.raises(MatrixError, match=re.escape(expected)) as error:
        ExitMatrix.load(file)
    assert str(file) in str(error.value)


def test_no_file_or_no_archive(tmp_path):
    with pytest.raises(MatrixError, match=r"cannot read .*No such file"):
        ExitMatrix.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("conf")
    with pytest.raises(MatrixError, match=r"not a valid \.npz"):
        ExitMatrix.load(tmp_path / "text.npz")


def test_an_array_beyond_the_limit_is_not_unpacked(tmp_path, monkeypatch):
    file = tmp_path / "large.npz"
    np.savez_compressed(file, conf=np.zeros((1, 1000)), acc=np.ones((1, 1000)))
    monkeypatch.setattr("layoutsel.exits.matrix.MOST_BYTES", 4000)
    with pytest.raises(MatrixError, match=r"got arrays of .* expected at most"):
        ExitMatrix.load(file)


def test_a_device_is_not_read():
    with pytest.raises(MatrixError, match="cannot read /dev/zero: not a regular file"):
        ExitMatrix.load("/dev/zero")
