"""The compute unit ``cpu``: TVM's LLVM code generation with this package's kernels."""

from tvm_passes.cpu.host import host_target
from tvm_passes.cpu.kernel_pipeline import NAME as KERNEL_PIPELINE
from tvm_passes.cpu.kernels import plan_subgraph
from tvm_passes.cpu.legality import generic, hints, record, supports
from tvm_passes.cpu.lower import LowerCpu

__all__ = [
    "KERNEL_PIPELINE",
    "LowerCpu",
    "generic",
    "hints",
    "host_target",
    "plan_subgraph",
    "record",
    "supports",
]
