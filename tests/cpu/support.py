"""Builds, lowers and runs small sub-graphs on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax

from tests.reference import relative_error, run_relax
from tvm_passes.cpu import KERNEL_PIPELINE, LowerCpu, host_target, supports
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import RewriteLayouts, subgraph_id

TARGET = host_target()
TOLERANCE = 5e-6
Body = Callable[..., relax.Expr]


def model(body: Body, *inputs: Sequence[int]) -> tvm.IRModule:
    """A stage-0 module; `body` gets one variable for each shape of `inputs`."""
    builder = relax.BlockBuilder()
    params = [
        relax.Var(f"in{index}", relax.TensorType(tuple(shape), "float32"))
        for index, shape in enumerate(inputs)
    ]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(body(*params)))
        builder.emit_func_output(result)
    return relax.transform.Normalize()(builder.get())


def declines(module: tvm.IRModule, decision: Decision) -> list[Decline]:
    """What the unit answers to `decision` for each sub-graph, where it declines."""
    functions = PartitionSubgraphs()(module).functions.values()
    answers = [supports(function, decision) for function in functions if subgraph_id(function)]
    return [answer for answer in answers if answer]


def decide(module: tvm.IRModule, decision: Decision) -> tvm.IRModule:
    """Stage 2: every sub-graph that supports `decision` gets it, the others the plain layout."""
    partitioned = PartitionSubgraphs()(module)
    decisions = {
        subgraph_id(function): decision
        if not supports(function, decision)
        else Decision(unit="cpu")
        for function in partitioned.functions.values()
        if subgraph_id(function)
    }
    return RewriteLayouts(decisions)(partitioned)


def finish(module: tvm.IRModule, target: tvm.target.Target = TARGET) -> relax.VirtualMachine:
    """Take a lowered module to a virtual machine."""
    passes = [
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]
    with target:
        module = tvm.transform.Sequential(passes)(module)
        executable = tvm.compile(module, target, relax_pipeline=None, tir_pipeline=KERNEL_PIPELINE)
    return relax.VirtualMachine(executable, tvm.cpu())


def run(
    module: tvm.IRModule,
    arrays: Sequence[np.ndarray],
    decision: Decision,
    target: tvm.target.Target = TARGET,
) -> np.ndarray:
    """The result of a stage-0 module by this unit."""
    machine = finish(LowerCpu(target)(decide(module, decision)), target)
    result = machine["main"](*(tvm.runtime.tensor(array) for array in arrays))
    return result.numpy()


def random_array(*shape: int, seed: int = 0) -> np.ndarray:
    """Normally distributed values."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype("float32")


def weights(*shape: int, seed: int = 1) -> relax.Expr:
    """A constant."""
    return relax.const(random_array(*shape, seed=seed))


def shuffled(y: relax.Expr, shape: Sequence[int], groups: int) -> relax.Expr:
    """The channels of `y`, of that shape, shuffled."""
    n, c, h, w = shape
    cut = relax.op.reshape(y, (n, groups, c // groups, h, w))
    return relax.op.reshape(relax.op.permute_dims(cut, [0, 2, 1, 3, 4]), (n, c, h, w))


def error(
    body: Body,
    shapes: Sequence[Sequence[int]],
    decision: Decision,
    target: tvm.target.Target = TARGET,
) -> float:
    """Relative L2 distance of this unit's result from stock TVM's, on random inputs."""
    module = model(body, *shapes)
    arrays = [random_array(*shape, seed=index) for index, shape in enumerate(shapes)]
    got = run(module, arrays, decision, target)
    return relative_error(got, run_relax(module, arrays)[0])
