"""Sub-graphs as one unscheduled function, in each layout."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import Call

from tests.bodies import BODIES
from tests.cpu.support import TARGET, model
from tests.reference import relative_error, run_relax
from tvm_passes.decided_functions import decide_function
from tvm_passes.decision import Decision
from tvm_passes.ir import main_bindings
from tvm_passes.layout import convert
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import subgraph_id
from tvm_passes.tunable import Tunable, tunable

LAYOUTS = ("NCHW", "NHWC", "NCHW16c")


def tasks(module, layout):
    """The sub-graphs of a module, in order, with the layouts of their ports."""
    decision = Decision(unit="cpu", layout=layout, algorithm="tuned")
    for function in PartitionSubgraphs()(module).functions.values():
        if subgraph_id(function):
            decided = decide_function(function, decision)
            yield decided, tunable(decided)


def computed(module, arrays, layout):
    """The result of a module of one sub-graph, by the code that would be tuned."""
    ((function, task),) = tasks(module, layout)
    assert isinstance(task, Tunable), task
    (code,) = task.module.functions.values()
    assert isinstance(code, tirx.PrimFunc)
    inputs = [str(name) for name in function.attrs["layoutsel.in_layouts"]]
    (output,) = (str(name) for name in function.attrs["layoutsel.out_layouts"])
    arguments = [convert(a, "NCHW", name) for a, name in zip(arrays, inputs, strict=False)]
    partitioned = PartitionSubgraphs()(module)
    (call,) = [b.value for b in main_bindings(partitioned["main"]) if isinstance(b.value, Call)]
    given = [argument.value.numpy() for argument in call.args[len(inputs) :]]
    for index, array in enumerate([*given, *task.constants], start=len(inputs)):
        pack = task.packs.get(index)
        arguments.append(pack(array) if pack else array)
    result = np.zeros([int(extent) for extent in task.result.shape.values], "float32")
    tensors = [tvm.runtime.tensor(array) for array in (*arguments, result)]
    tvm.compile(task.module, TARGET)(*tensors)
    return convert(tensors[-1].numpy(), output, "NCHW")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", BODIES)
def test_it_computes_the_same_in_every_layout(name, layout):
    body, shapes = BODIES[name]
    module = model(body, *shapes)
    generator = np.random.default_rng(5)
    arrays = [generator.standard_normal(shape).astype("float32") for shape in shapes]
    result = computed(module, arrays, layout)
    expected = run_relax(module, arrays)[0]  # NumPy makes scalars 1-d on the way
    assert relative_error(result.reshape(expected.shape), expected) < 1e-5


def test_packed_convolutions_read_and_write_blocks():
    ((_, task),) = tasks(model(*_same()), "NCHW16c")
    shapes = [[int(extent) for extent in param.shape] for param in task.module["main"].params]
    assert shapes == [[1, 1, 7, 9, 16], [2, 1, 3, 3, 16, 16], [1, 2, 1, 1, 16], [1, 2, 7, 9, 16]]
    assert "//" not in task.module.script()
    assert "%" not in task.module.script()


def _same():
    body, shapes = BODIES["same"]
    return body, *shapes


def test_equal_sub_graphs_are_the_same_task():
    first, second = (next(tasks(model(*_same()), "NHWC"))[1].module for _ in range(2))
    assert tvm_ffi.structural_equal(first, second)


def test_views_and_several_results_are_no_tasks():
    view = model(lambda x: relax.op.reshape(x, (1, 64)), (1, 4, 4, 4))
    assert [task for _, task in tasks(view, "NCHW")] == ["a view, which needs no code"]
    several = model(lambda x: relax.op.split(x, 2, axis=1), (1, 4, 4, 4))
    answers = [task for _, task in tasks(several, "NCHW")]
    assert "a body with several results" in answers
