"""Results of a Relax module from unmodified TVM: slow, and independent of layoutsel's passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import tvm
from tvm import relax


def run_stock(
    module: tvm.IRModule,
    samples: Iterable[Sequence[np.ndarray]],
    weights: Sequence[np.ndarray],
) -> list[list[np.ndarray]]:
    """Run a module, whose last argument is the tuple of `weights`, on each of `samples`."""
    machine = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
    lifted = tvm.runtime.convert([*map(tvm.runtime.tensor, weights)])
    found = []
    for inputs in samples:
        result = machine["main"](*[tvm.runtime.tensor(value) for value in inputs], lifted)
        tensors = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        found.append([tensor.numpy() for tensor in tensors])
    return found
