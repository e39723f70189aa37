"""Code of CUDA devices, which lies in bundles beside the libraries.

Where there is no CUDA device, TVM leaves such code in a library as CUDA C++, and calls for a compiler when the library is
loaded. `layoutsel bundle` has compiled it; here TVM is given what came of it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import tvm_ffi

SUFFIX = ".fatbin"
_CALLBACK = "tvm_callback_cuda_compile"
"""What TVM calls with CUDA C++, for code that a driver takes."""


def name_of(source: str) -> str:
    """What compiled code of `source` is called."""
    return hashlib.sha256(source.encode()).hexdigest()[:16] + SUFFIX


def provide_device_code(folder: Path) -> None:
    """Let TVM find the compiled code in `folder`; nothing happens where there is none."""
    found = {file.name: file.read_bytes() for file in folder.glob(f"*{SUFFIX}")}
    if not found:
        return
    otherwise = tvm_ffi.get_global_func(_CALLBACK, allow_missing=True)

    def compiled(source: str) -> bytes:
        code = found.get(name_of(source))
        if code is None and otherwise is not None:
            return otherwise(source)
        if code is None:
            raise RuntimeError(f"{folder} has no compiled code of a CUDA kernel: bundle it again")
        return code

    tvm_ffi.register_global_func(_CALLBACK, compiled, override=True)
