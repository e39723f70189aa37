"""Sub-graphs of every kind in each of a device's layouts, beside stock TVM."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tvm
from on_opencl import needs_device
from tvm import relax

from tests.bodies import BODIES
from tests.cpu.support import TARGET, model
from tests.reference import relative_error, run_relax
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import KERNEL_PIPELINE
from tvm_passes.decision import Decision
from tvm_passes.ir import main_bindings, op_name
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.pipeline import build_context, lower
from tvm_passes.rewrite_layouts import subgraph_id

pytestmark = needs_device

LAYOUTS = ("NCHW", "NHWC", "NCHW4c")
DEVICE = BACKENDS["opencl"]


def lowered(module, layout):
    """The module on the device, in that layout wherever it is possible; and whether it is anywhere."""
    partitioned = PartitionSubgraphs()(module)
    wanted = Decision(unit="opencl", layout=layout)
    able = {
        id_: DEVICE.supports(function, wanted) is None
        for function in partitioned.functions.values()
        if (id_ := subgraph_id(function))
    }
    decisions = {id_: wanted if able[id_] else Decision(unit="opencl") for id_ in able}
    return lower(partitioned, decisions, TARGET), any(able.values())


@cache
def expected(name):
    """A body as a module, arguments, and what it makes of them."""
    body, shapes = BODIES[name]
    module = model(body, *shapes)
    generator = np.random.default_rng(5)
    arrays = [generator.standard_normal(shape).astype("float32") for shape in shapes]
    return module, arrays, run_relax(module, arrays)[0]


# What is no convolution takes TVM's own way in plain layout, which `test_kernels` is about.
CASES = [
    (name, layout)
    for name, (_, shapes) in BODIES.items()
    for layout in LAYOUTS
    if layout != "NCHW"
    or (len(shapes[0]) == 4 and name not in ("mean", "averages", "pooling", "softmax"))
]


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_it_computes_the_same_in_every_layout(name, layout):
    module, arrays, result = expected(name)
    code, is_possible = lowered(module, layout)
    assert is_possible == (layout == "NCHW" or name != "product")
    with build_context(code):
        executable = tvm.compile(
            code, TARGET, relax_pipeline="default_build", tir_pipeline=KERNEL_PIPELINE
        )
    machine = relax.VirtualMachine(executable, [tvm.cpu(), tvm.opencl()])
    found = machine["main"](*map(tvm.runtime.tensor, arrays))
    assert relative_error(found.numpy(), result) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_convolution_is_one_kernel_with_what_is_behind_it(layout):
    body, shapes = BODIES["residual"]
    code, _ = lowered(model(body, *shapes), layout)
    kernels = [b for b in main_bindings(code["main"]) if op_name(b.value) == "call_tir"]
    ours = [b for b in kernels if str(b.value.args[0].name_hint).startswith("opencl_conv2d")]
    assert len(ours) == 1
    transforms = [b for b in kernels if b not in ours]
    assert len(transforms) == (0 if layout == "NCHW" else 3)


def test_a_convolution_shares_its_loads():
    body, shapes = BODIES["same"]
    code, _ = lowered(model(body, *shapes), "NHWC")
    (kernel,) = [f for gv, f in code.functions.items() if "conv2d" in gv.name_hint]
    assert 'scope="shared"' in kernel.script()
