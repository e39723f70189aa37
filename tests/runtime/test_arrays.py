"""Arrays become tensors on the same memory, whatever their elements."""

import ml_dtypes
import numpy as np
import pytest
import tvm_ffi

from layoutsel.runtime import artifact
from layoutsel.runtime.arrays import TENSOR_ALIGNMENT, dtype_of, to_array, to_tensor

VALUES = np.random.default_rng(0).standard_normal((3, 40))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, ml_dtypes.bfloat16])
def test_tensors_have_the_elements_of_the_array(dtype):
    array = VALUES.astype(dtype)
    tensor = to_tensor(array[:, ::2])
    assert str(tensor.dtype) == array.dtype.name
    assert tuple(tensor.shape) == (3, 20)
    bits = to_tensor(array.view(np.uint16)) if array.dtype.itemsize == 2 else to_tensor(array)
    np.testing.assert_array_equal(to_array(bits).view(array.dtype), array)


def test_an_aligned_array_is_not_copied():
    buffer = np.zeros(256, np.uint8)
    start = -buffer.ctypes.data % TENSOR_ALIGNMENT
    array = buffer[start : start + 128].view(ml_dtypes.bfloat16)
    tensor = to_tensor(array)
    array[5] = 3.0
    seen = tvm_ffi.from_dlpack(tensor)
    assert str(seen.dtype) == "bfloat16"
    assert array.ctypes.data % TENSOR_ALIGNMENT == 0


HEADER = {"inputs": [], "outputs": [], "threads": 1}
"""The least that a model tells of itself."""


def test_bfloat16_weights_in_an_artifact(tmp_path):
    library, path = tmp_path / "library.so", tmp_path / "model.so"
    library.write_bytes(b"code")
    weights = [VALUES.astype(ml_dtypes.bfloat16), VALUES.astype(np.float32)]
    artifact.write(path, artifact.ArtifactPart(library=library, weights=weights, header=HEADER))
    for got, want in zip(artifact.read(path).weights, weights, strict=True):
        assert got.dtype == want.dtype == dtype_of(want.dtype.name)
        np.testing.assert_array_equal(got, want)


def test_equal_weights_lie_once_in_an_artifact(tmp_path):
    library, path = tmp_path / "library.so", tmp_path / "model.so"
    library.write_bytes(b"code")
    one, other = VALUES.astype(np.float32), VALUES.astype(np.float32) + 1
    parts = [
        artifact.ArtifactPart(
            library=library, weights=weights, header={**HEADER, "name": str(len(weights))}
        )
        for weights in ([one, other, one], [other.copy(), one.reshape(-1)])
    ]
    artifact.write(path, *parts)
    read = artifact.read(path)
    assert (read.header["name"], read.fallback.header["name"]) == ("3", "2")
    for part, want in zip((read, read.fallback), parts, strict=True):
        for got, weight in zip(part.weights, want.weights, strict=True):
            np.testing.assert_array_equal(got, weight)
    offsets = [
        [entry["offset"] for entry in part.header["weights"]] for part in (read, read.fallback)
    ]
    assert offsets[0][0] == offsets[0][2]
    assert offsets[0][1] == offsets[1][0]
    with artifact.extracted(read.fallback) as extracted:
        assert extracted.read_bytes() == b"code"
    assert not extracted.exists()
