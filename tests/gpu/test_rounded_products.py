"""Products in bfloat16: what a GPU would compute, by TVM's code for the CPU."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.ir import Call

from tests.bodies import BODIES
from tests.cpu.support import model
from tests.reference import relative_error, run_relax
from tvm_passes.decided_functions import decide_function
from tvm_passes.decision import Decision
from tvm_passes.ir import main_bindings
from tvm_passes.layout import convert
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.ports import decided_layouts
from tvm_passes.rewrite_layouts import subgraph_id
from tvm_passes.round_products import round_products
from tvm_passes.tunable import tunable

TOLERANCE = 5e-3
"""Factors have eight bits."""


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NCHW4c"])
@pytest.mark.parametrize("name", ["same", "stem", "strided", "depthwise", "residual", "product"])
def test_it_is_as_exact_as_its_factors(name, layout):
    body, shapes = BODIES[name]
    module = model(body, *shapes)
    generator = np.random.default_rng(1)
    arrays = [generator.standard_normal(shape).astype("float32") for shape in shapes]
    partitioned = PartitionSubgraphs()(module)
    (function,) = [f for f in partitioned.functions.values() if subgraph_id(f)]
    decision = Decision(unit="cuda", layout=layout, precision="bf16")
    decided = decide_function(function, decision)
    inputs, (output,) = decided_layouts(decided)
    task = tunable(decided)
    (call,) = [b.value for b in main_bindings(partitioned["main"]) if isinstance(b.value, Call)]
    given = [argument.value.numpy() for argument in call.args[len(inputs) :]]
    arguments = [convert(a, "NCHW", layout) for a, layout in zip(arrays, inputs, strict=True)]
    for index, array in enumerate([*given, *task.constants], start=len(inputs)):
        arguments.append(task.packs[index](array) if index in task.packs else array)
    assert [str(a.dtype) for a in arguments[:2]] == ["bfloat16"] * 2
    result = np.zeros([int(n) for n in task.result.shape.values], ml_dtypes.bfloat16)
    tensors = [tvm.runtime.tensor(array) for array in (*arguments, result)]
    tvm.compile(task.module, "llvm")["main"](*tensors)
    found = convert(tensors[-1].numpy().astype(ml_dtypes.bfloat16), output, "NCHW")
    error = relative_error(found.astype("float32"), run_relax(module, arrays)[0])
    assert 1e-5 < error < TOLERANCE


def test_a_weight_that_something_else_reads_stays_exact():
    builder = relax.BlockBuilder()
    x, w = (relax.Var(name, relax.TensorType((8, 8), "float32")) for name in "xw")
    with builder.function("main", [x, w]):
        with builder.dataflow():
            product = builder.emit(relax.op.matmul(x, w))
            both = builder.emit_output(builder.emit(relax.op.concat([product, w], axis=0)))
        builder.emit_func_output(both)
    function = builder.get()["main"]
    _, rounded = round_products(function, [], result=False)
    assert rounded == {0}
