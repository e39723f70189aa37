"""Conversion between numpy arrays and tensors of TVM's runtime, without TVM's Python package."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import tvm_ffi

from layoutsel.device.tensors import copied
from tvm_passes.devices import DeviceId

TENSOR_ALIGNMENT = 64
"""Alignment of tensors that TVM's generated code assumes, bytes."""

_BFLOAT = 4
"""DLPack's type code of bfloat16."""
_UNSIGNED = 1
"""DLPack's type code of unsigned integers."""
_CODE_OFFSET = 20
"""Offset of the type code in a DLTensor, bytes: after data pointer, device and rank."""

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def to_tensor(array: np.ndarray) -> tvm_ffi.Tensor:
    """Make a tensor on the memory of `array`.

    An array that is not aligned, contiguous and writeable is copied.
    """
    if array.flags.c_contiguous and array.flags.writeable:
        tensor = _exported(array)
        # numpy takes ten times as long to return an address as tvm_ffi.
        if tensor.data_ptr() % TENSOR_ALIGNMENT == 0:
            return tensor
    buffer = np.empty(array.nbytes + TENSOR_ALIGNMENT, dtype=np.uint8)
    start = -buffer.ctypes.data % TENSOR_ALIGNMENT
    copy = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return _exported(copy)


def placed(tensor: tvm_ffi.Tensor, device: DeviceId) -> tvm_ffi.Tensor:
    """Return `tensor` itself for the host, or its copy on a device."""
    return tensor if device.is_host else copied(tensor, device)


def to_array(tensor: tvm_ffi.Tensor) -> np.ndarray:
    """Make an array on the memory of `tensor`; read-only memory is copied."""
    if str(tensor.dtype) == "bfloat16":
        array = np.from_dlpack(_Bits(tensor)).view(dtype_of("bfloat16"))
    else:
        array = np.from_dlpack(tensor)
    return array if array.flags.writeable else array.copy()


def bits_of(array: np.ndarray) -> np.ndarray:
    """Return `array` itself, or its bits as integers for bfloat16, which numpy lacks."""
    return array.view(np.uint16) if name_of(array.dtype) == "bfloat16" else array


@lru_cache
def name_of(dtype: np.dtype[Any]) -> str:
    """Name of an element type, cached since numpy takes several microseconds to make it."""
    return str(dtype)


def _exported(array: np.ndarray) -> tvm_ffi.Tensor:
    """Make a tensor on the memory of `array`, whatever its alignment."""
    is_bfloat16 = name_of(array.dtype) == "bfloat16"
    return tvm_ffi.from_dlpack(_Bfloat16(array) if is_bfloat16 else array)


def dtype_of(name: str) -> np.dtype[Any]:
    """Element type of that name, including bfloat16, which numpy lacks."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


class _Bits:
    """DLPack export of a bfloat16 tensor as 16-bit integers, which numpy can read."""

    def __init__(self, tensor: tvm_ffi.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **_options: Any) -> Any:
        capsule = self._tensor.__dlpack__()
        address = _get_pointer(capsule, b"dltensor")
        ctypes.c_uint8.from_address(address + _CODE_OFFSET).value = _UNSIGNED
        return capsule

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self._tensor.__dlpack_device__()


class _Bfloat16:
    """DLPack export of a bfloat16 array, which numpy refuses to export.

    The array is exported as integers, and the type code is corrected afterwards.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._bits = bits_of(array)

    def __dlpack__(self, **_options: Any) -> Any:
        capsule = self._bits.__dlpack__()
        address = _get_pointer(capsule, b"dltensor")
        ctypes.c_uint8.from_address(address + _CODE_OFFSET).value = _BFLOAT
        return capsule

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self._bits.__dlpack_device__()
