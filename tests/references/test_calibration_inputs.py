"""Calibration inputs: samples behind each other, and every way in which a file can be wrong."""

import numpy as np
import pytest

from layoutsel.device.signature import Signature, ValueRange
from layoutsel.references.calibration_inputs import CalibrationError, read_calibration

INPUTS = (
    Signature(name="x", shape=(2, 3, 4), dtype="float32"),
    Signature(name="scale/0", shape=(), dtype="float32"),
)


def arrays(count=3, **changed):
    whole = {
        "x": np.arange(2 * count * 12, dtype=np.float32).reshape(2 * count, 3, 4),
        "scale/0": np.arange(count, dtype=np.float32),
    }
    return {**whole, **changed}


def saved(folder, given):
    file = folder / "data.npz"
    np.savez(file, **given)
    return file


def test_samples_in_the_order_of_the_inputs(tmp_path):
    given = arrays()
    samples = read_calibration(saved(tmp_path, given), INPUTS)
    assert len(samples) == 3
    for index, (x, scale) in enumerate(samples):
        np.testing.assert_array_equal(x, given["x"][2 * index : 2 * index + 2])
        assert scale == index
        assert scale.shape == ()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"x": np.zeros((5, 3, 4), np.float32)}, "got float32 of shape (5, 3, 4); expected"),
        ({"x": np.zeros((6, 3, 5), np.float32)}, "expected float32 of shape (2·N, 3, 4)"),
        ({"x": np.zeros((0, 3, 4), np.float32)}, "of shape (0, 3, 4); expected"),
        ({"x": np.zeros((6, 3, 4))}, "got float64 of shape (6, 3, 4); expected float32"),
        ({"x": np.float32(1)}, "of shape (); expected"),
        ({"x": np.zeros((4, 3, 4), np.float32)}, "got samples 2 of 'x', 3 of 'scale/0'"),
        ({"z": np.zeros(3)}, "array 'z' is no input of the model, which takes x, scale/0"),
        ({"x": np.array([{}])}, "not a valid .npz file of numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, changed, expected):
    with pytest.raises(CalibrationError) as caught:
        read_calibration(saved(tmp_path, arrays(**changed)), INPUTS)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_array(tmp_path):
    with pytest.raises(CalibrationError, match="no array for the input 'x': got scale/0"):
        read_calibration(saved(tmp_path, {"scale/0": np.zeros(3, np.float32)}), INPUTS)


def test_files_that_are_none(tmp_path):
    whole = saved(tmp_path, arrays()).read_bytes()
    cut, single = tmp_path / "cut.npz", tmp_path / "single.npy"
    np.save(single, np.zeros(3))
    with pytest.raises(CalibrationError, match="got a single array"):
        read_calibration(single, INPUTS)
    for damaged in (whole[:-40], whole[:60] + b"\xff" * 40 + whole[100:], b"", b"text"):
        cut.write_bytes(damaged)
        with pytest.raises(CalibrationError, match="npz file of numbers"):
            read_calibration(cut, INPUTS)
    with pytest.raises(CalibrationError, match="No such file"):
        read_calibration(tmp_path / "none.npz", INPUTS)
    with pytest.raises(CalibrationError, match="cannot read"):
        read_calibration(tmp_path, INPUTS)


def test_an_index_outside_of_its_axis(tmp_path):
    ids = ValueRange(low=-9, high=8, start=0, stop=2)
    takes = [Signature(name="ids", shape=(2,), dtype="int64", ranges=(ids,))]
    with pytest.raises(CalibrationError, match=r"sample 1: input 'ids': got 9 at position \(1,\)"):
        read_calibration(saved(tmp_path, {"ids": np.array([0, 1, 2, 9])}), takes)
