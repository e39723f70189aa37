"""Between numpy's arrays and the tensors of TVM's runtime, without TVM's Python package."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import tvm_ffi

from layoutsel.device.tensors import copied
from tvm_passes.devices import DeviceId

TENSOR_ALIGNMENT = 64
"""Bytes; what TVM's generated code assumes of a tensor's address."""

_BFLOAT = 4
"""DLPack's code of bfloat16's kind, in DLDataType.code."""
_UNSIGNED = 1
"""That of unsigned integers."""
_CODE_OFFSET = 20
"""Of that code in a DLTensor: behind the data pointer, the device and the number of axes."""

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def to_tensor(array: np.ndarray) -> tvm_ffi.Tensor:
    """A tensor on the memory of `array`, or of a copy where that is not aligned, contiguous and writeable."""
    aligned = array.ctypes.data % TENSOR_ALIGNMENT == 0
    if not (aligned and array.flags.c_contiguous and array.flags.writeable):
        buffer = np.empty(array.nbytes + TENSOR_ALIGNMENT, dtype=np.uint8)
        start = -buffer.ctypes.data % TENSOR_ALIGNMENT
        copy = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        array = copy
    return tvm_ffi.from_dlpack(_Bfloat16(array) if array.dtype.name == "bfloat16" else array)


def placed(tensor: tvm_ffi.Tensor, device: DeviceId) -> tvm_ffi.Tensor:
    """`tensor` where a device reads it: itself on the host, else a copy on the device."""
    return tensor if device.is_host else copied(tensor, device)


def to_array(tensor: tvm_ffi.Tensor) -> np.ndarray:
    """An array on the memory of `tensor`, or a copy where that is not writeable."""
    if str(tensor.dtype) == "bfloat16":
        array = np.from_dlpack(_Bits(tensor)).view(dtype_of("bfloat16"))
    else:
        array = np.from_dlpack(tensor)
    return array if array.flags.writeable else array.copy()


def bits_of(array: np.ndarray) -> np.ndarray:
    """`array`, or its bits where numpy does not know its elements."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def dtype_of(name: str) -> np.dtype[Any]:
    """The element type called `name`; numpy does not know bfloat16 by itself."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


class _Bits:
    """Exports a tensor of bfloat16 through DLPack as integers, the only elements of that size that numpy takes."""

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
    """Exports an array of bfloat16 through DLPack, which numpy refuses to: as integers, whose type is then put right."""

    def __init__(self, array: np.ndarray) -> None:
        self._bits = bits_of(array)

    def __dlpack__(self, **_options: Any) -> Any:
        capsule = self._bits.__dlpack__()
        address = _get_pointer(capsule, b"dltensor")
        ctypes.c_uint8.from_address(address + _CODE_OFFSET).value = _BFLOAT
        return capsule

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self._bits.__dlpack_device__()
