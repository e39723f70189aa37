"""Code of a device under a schedule that a tuning record describes."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from on_opencl import needs_device
from tvm import relax
from tvm.s_tir import dlight
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.database import MemoryDatabase, TuningRecord

from tests.bodies import BODIES
from tests.cpu.support import TARGET, model
from tests.reference import relative_error, run_relax
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import KERNEL_PIPELINE
from tvm_passes.decided_functions import decide_function
from tvm_passes.decision import Decision
from tvm_passes.gpu.target import device_target
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.pipeline import build_context, lower
from tvm_passes.rewrite_layouts import subgraph_id
from tvm_passes.tunable import tunable

pytestmark = needs_device

DECISION = Decision(unit="opencl", layout="NHWC", algorithm="tuned")


@pytest.fixture
def partitioned():
    body, shapes = BODIES["pointwise"]
    return PartitionSubgraphs()(model(body, *shapes))


@pytest.fixture
def function(partitioned):
    (found,) = [f for f in partitioned.functions.values() if subgraph_id(f)]
    return found


def database(function):
    """One record: the plainest schedule, which no rule for products would give."""
    task = tunable(decide_function(function, DECISION))
    target = device_target("opencl", TARGET)
    with target:
        schedule = dlight.gpu.Fallback().apply(task.module["main"], target, False)
    found = MemoryDatabase()
    workload = found.commit_workload(task.module)
    arguments = ArgInfo.from_prim_func(task.module["main"])
    found.commit_tuning_record(
        TuningRecord(schedule.trace, workload, [1e-4], device_target("opencl"), arguments)
    )
    return found


def test_without_a_record_it_is_declined(function):
    supports = BACKENDS["opencl"].supports
    assert supports(function, DECISION).got == "no tuning database"
    with MemoryDatabase():
        assert supports(function, DECISION).got == "none in the database at hand"


def test_a_record_decides_the_schedule(partitioned, function):
    with database(function):
        assert BACKENDS["opencl"].supports(function, DECISION) is None
        code = lower(partitioned, {subgraph_id(function): DECISION}, TARGET)
    (kernel,) = [f for gv, f in code.functions.items() if "conv2d" in gv.name_hint]
    assert 'scope="shared"' not in kernel.script()
    with build_context(code):
        executable = tvm.compile(
            code, TARGET, relax_pipeline="default_build", tir_pipeline=KERNEL_PIPELINE
        )
    machine = relax.VirtualMachine(executable, [tvm.cpu(), tvm.opencl()])
    shape = BODIES["pointwise"][1][0]
    x = np.random.default_rng(2).standard_normal(shape).astype("float32")
    body, shapes = BODIES["pointwise"]
    expected = run_relax(model(body, *shapes), [x])[0]
    assert relative_error(machine["main"](tvm.runtime.tensor(x)).numpy(), expected) < 1e-5
