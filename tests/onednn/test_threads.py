"""TVM's parallel loops and oneDNN's primitives share OpenMP's threads."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from tvm_passes.onednn import available, set_num_threads

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

ROWS, COLUMNS = 37, 64


def parallel_double():
    """A function whose rows TVM computes in parallel."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((ROWS, COLUMNS), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(
                builder.call_te(
                    lambda t: tvm.te.compute(t.shape, lambda i, j: t[i, j] * tirx.const(2.0), "y"),
                    x,
                )
            )
        builder.emit_func_output(y)
    module = builder.get()
    (kernel,) = [gv for gv, f in module.functions.items() if isinstance(f, tirx.PrimFunc)]
    schedule = tvm.s_tir.Schedule(module[kernel])
    rows, _ = schedule.get_loops(schedule.get_sblock("y"))
    schedule.parallel(rows)
    module.update_func(kernel, schedule.mod["main"])
    return module


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_parallel_loop_runs_on_openmp(threads):
    executable = tvm.compile(parallel_double(), "llvm", relax_pipeline="default_build")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    x = np.arange(ROWS * COLUMNS, dtype="float32").reshape(ROWS, COLUMNS)
    try:
        set_num_threads(threads)
        result = machine["main"](tvm.runtime.tensor(x)).numpy()
    finally:
        set_num_threads(0)
    np.testing.assert_array_equal(result, 2 * x)
