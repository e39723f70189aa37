"""The compute unit ``cuda``: NVIDIA's GPUs."""

from __future__ import annotations

from tvm_passes import cuda
from tvm_passes.units.device import CODE, device_backend
from tvm_passes.units.entry import Abilities

BACKEND = device_backend(
    "cuda",
    unavailable=cuda.unavailable,
    identity=cuda.identity,
    missing=cuda.missing,
    abilities=Abilities(
        dtypes=Abilities().dtypes | {"float16", "bfloat16", "float64"}, precisions=("f32", "bf16")
    ),
    code=(*CODE, "tvm_passes.cuda:compiling"),
    rank=3,
)
