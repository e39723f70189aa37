"""Builds, lowers and runs small sub-graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tvm
from tvm import relax

from tvm_passes.cpu import LowerCpu, host_target, supports
from tvm_passes.decision import Decision
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import RewriteLayouts, subgraph_id

TARGET = host_target()
Body = Callable[..., relax.Expr]


def model(body: Body, inputs: Sequence[Sequence[int]]) -> tvm.IRModule:
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


def decide(module: tvm.IRModule, decision: Decision) -> tvm.IRModule:
    """Partition `module`; every sub-graph that supports `decision` gets it, others the plain one."""
    partitioned = PartitionSubgraphs()(module)
    plain = Decision(unit="cpu")
    decisions = {
        subgraph_id(function): decision if supports(function, decision) is None else plain
        for function in partitioned.functions.values()
        if subgraph_id(function)
    }
    return RewriteLayouts(decisions)(partitioned)


def finish(module: tvm.IRModule, target: tvm.target.Target = TARGET) -> relax.VirtualMachine:
    """Take a lowered module to a virtual machine."""
    with target:
        module = tvm.transform.Sequential(
            [
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
        )(module)
        executable = relax.vm_build.build(module, target, relax_pipeline=None) if hasattr(
            relax, "vm_build"
        ) else tvm.compile(module, target, relax_pipeline=None)
    return relax.VirtualMachine(executable, tvm.cpu())


def run(module: tvm.IRModule, arrays: Sequence[np.ndarray], decision: Decision) -> np.ndarray:
    """The result of a stage-0 module by this unit."""
    lowered = LowerCpu(TARGET)(decide(module, decision))
    machine = finish(lowered)
    result = machine["main"](*(tvm.runtime.tensor(array) for array in arrays))
    return result.numpy()


def random_arrays(
    shapes: Sequence[Sequence[int]], seed: int = 0
) -> list[np.ndarray]:
    """Normally distributed arrays."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(tuple(shape)).astype("float32") for shape in shapes]


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Relative error in the Euclidean norm."""
    scale = np.linalg.norm(expected.astype("float64"))
    return float(np.linalg.norm(got.astype("float64") - expected) / max(scale, 1e-30))


Attributes = Mapping[str, object]
