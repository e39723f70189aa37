"""A precision from outside the package: activations lie in float16, arithmetic is in float32."""

from tvm_passes.precisions.entry import ElementStorage, Precision

PRECISION = Precision(
    name="f16-storage",
    documentation="Activations in float16, which keeps 11 bits; arithmetic in float32.",
    storage=ElementStorage(name="f16", dtype="float16"),
    local_error=2.5e-4,
    relative_bytes=0.5,
    tolerance=4e-3,
    generic=("cpu",),
)
