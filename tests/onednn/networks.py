"""Small networks for the tests of the oneDNN unit, and ways to run them on it and without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax

from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.merge_partitions import MergePartitions
from tvm_passes.onednn import LowerOnednn, supports
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import RewriteLayouts, subgraph_id

Body = Callable[..., relax.Expr]
CODEGEN = {"onednn": "layoutsel_onednn"}


def network(body: Body, *shapes: Sequence[int]) -> tvm.IRModule:
    """A stage-0 module; `body` gets one variable for each shape."""
    builder = relax.BlockBuilder()
    params = [
        relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)
    ]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(body(*params)))
        builder.emit_func_output(result)
    return relax.transform.Normalize()(builder.get())


def weight(*shape: int, seed: int = 7) -> relax.Expr:
    """A constant with random values, of a size that keeps results near 1."""
    values = np.random.default_rng(seed).standard_normal(shape)
    fan_in = max(1, int(np.prod(shape[1:]))) if len(shape) > 1 else 1
    return relax.const((values / np.sqrt(fan_in)).astype("float32"))


def arrays(*shapes: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Random inputs."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


def functions(module: tvm.IRModule) -> dict[SubgraphId, relax.Function]:
    """The sub-graph functions of a partitioned module, by id."""
    found = {subgraph_id(function): function for function in module.functions.values()}
    return {subgraph: function for subgraph, function in found.items() if subgraph is not None}


def merged(module: tvm.IRModule, decision: Decision) -> tvm.IRModule:
    """Stage 3 of `module`, every sub-graph under `decision`, which must be legal for it."""
    partitioned = PartitionSubgraphs()(module)
    decisions = dict.fromkeys(functions(partitioned), decision)
    for function in functions(partitioned).values():
        decline = supports(function, decision)
        assert decline is None, str(decline)
    return MergePartitions(CODEGEN)(RewriteLayouts(decisions, frozenset(CODEGEN))(partitioned))


def machine(module: tvm.IRModule) -> relax.VirtualMachine:
    """Build a lowered module."""
    executable = tvm.compile(module, "llvm", relax_pipeline="default_build")
    return relax.VirtualMachine(executable, tvm.cpu())


def call(vm: relax.VirtualMachine, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Results of `main`, a tuple's fields flattened."""
    result = vm["main"](*(tvm.runtime.tensor(array) for array in inputs))
    fields = [result] if hasattr(result, "numpy") else list(result)
    return [field.numpy() for field in fields]


def run_onednn(
    module: tvm.IRModule, inputs: Sequence[np.ndarray], decision: Decision
) -> list[np.ndarray]:
    """Results of `module`, all of it on oneDNN."""
    return call(machine(LowerOnednn()(merged(module, decision))), inputs)


def run_reference(module: tvm.IRModule, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Results of `module` by TVM's own, unscheduled code."""
    return call(machine(module), inputs)
