"""Functions on an OpenCL device, beside numpy."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax

from tests.prepared import run_python
from tvm_passes.opencl import plugin

needs_device = pytest.mark.skipif(
    not plugin.devices(),
    reason=f"no OpenCL device: {plugin.available() or 'no driver (Debian: pocl-opencl-icd)'}",
)

TARGET = tvm.target.Target("opencl", host="llvm")

_CODES = {"int": 0, "uint": 1, "float": 2, "handle": 3, "bool": 6}


def module(build: Callable[..., Any], *types: tuple[tuple[int, ...], str]) -> tvm.IRModule:
    """`main` that applies `build` to tensors of these shapes and dtypes."""
    builder = relax.BlockBuilder()
    params = [relax.Var(f"x{i}", relax.TensorType(*each)) for i, each in enumerate(types)]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(build(*params))
        builder.emit_func_output(result)
    return builder.get()


def on_device(mod: tvm.IRModule, *values: np.ndarray) -> np.ndarray:
    """What `main` gives on the first device."""
    device = tvm.opencl(0)
    machine = relax.VirtualMachine(tvm.compile(mod, TARGET), device)
    return machine["main"](*(tvm.runtime.tensor(value, device) for value in values)).numpy()


def random(*shape: int, dtype: str = "float32") -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * 4).astype(dtype)


def saved(name: str, types: Sequence[tuple[str, int]], tags: Sequence[str], code: str) -> bytes:
    """A module of one kernel as TVM saves it: the kind and bits of each argument, the launch parameters, the source."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    arguments = b"".join(struct.pack("<BBH", _CODES[kind], bits, 1) for kind, bits in types)
    return b"".join(
        (
            *(text("cl"), struct.pack("<Q", 1), text(name), text(name)),
            *(struct.pack("<Q", len(types)), arguments),
            *(struct.pack("<Q", len(tags)), *map(text, tags)),
            *(struct.pack("<Q", 0), text(f"// Function: {name}\n{code}")),
        )
    )


def loaded(data: bytes) -> Any:
    """The module that was saved so."""
    return tvm_ffi.get_global_func("ffi.Module.load_from_bytes.opencl")(data)


def kernel(name: str, types: Sequence[tuple[str, int]], tags: Sequence[str], code: str) -> Any:
    """A kernel written by hand; it takes numbers, and of buffers what `pointer` gives."""
    return loaded(saved(name, types, tags, code))[name]


def pointer(tensor: tvm.runtime.Tensor) -> Any:
    """What TVM's generated code hands a kernel for a tensor."""
    return ctypes.c_void_p(tensor.data_ptr())


def python(program: str, **environment: str) -> str:
    """What a process of its own prints; it must succeed."""
    done = run_python("-c", program, limit_s=300, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
