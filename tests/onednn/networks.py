"""Small networks for the tests of the oneDNN unit, and ways to run them on it and without it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np
import tvm
from tvm import relax

from tests.reference import run_relax, stock_machine
from tvm_passes.cpu import KERNEL_PIPELINE, LowerCpu, host_target
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.ir import Constant, main_bindings, substitute
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


def rounded(array: np.ndarray) -> np.ndarray:
    """`array` with what bfloat16 keeps of its values."""
    return array.astype(ml_dtypes.bfloat16).astype(array.dtype)


def with_rounded_constants(module: tvm.IRModule) -> tvm.IRModule:
    """`module` with weights that bfloat16 holds exactly; numbers and biases stay, which no unit rounds."""

    def replacement(leaf):
        if leaf in mapping:
            return mapping[leaf]
        if isinstance(leaf, Constant) and len(leaf.ty.shape) > 1:
            return relax.const(rounded(leaf.value.numpy()))
        return None

    main = module["main"]
    builder = relax.BlockBuilder()
    mapping: dict = {}
    with builder.function("main", main.params):
        with builder.dataflow():
            for binding in main_bindings(main):
                mapping[binding.var] = builder.emit(substitute(binding.value, replacement))
            result = builder.emit_output(substitute(main.body.body, replacement))
        builder.emit_func_output(result)
    return builder.get()


def functions(module: tvm.IRModule) -> dict[SubgraphId, relax.Function]:
    """The sub-graph functions of a partitioned module, by id."""
    found = {subgraph_id(function): function for function in module.functions.values()}
    return {subgraph: function for subgraph, function in found.items() if subgraph is not None}


def merged(module: tvm.IRModule, *choices: Decision) -> tvm.IRModule:
    """Stage 3 of `module`, its sub-graphs under `choices`, the last again and again; all must be legal."""
    partitioned = PartitionSubgraphs()(module)
    found = functions(partitioned)
    repeated = itertools.chain(choices, itertools.repeat(choices[-1]))
    decisions = dict(zip(found, repeated, strict=False))
    for subgraph, function in found.items():
        decline = supports(function, decisions[subgraph])
        assert decline is None, str(decline)
    return MergePartitions(CODEGEN)(RewriteLayouts(decisions)(partitioned))


def machine(module: tvm.IRModule) -> relax.VirtualMachine:
    """Build a lowered module."""
    return stock_machine(module, relax_pipeline="default_build")


def call(vm: relax.VirtualMachine, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Results of `main`, a tuple's fields flattened."""
    result = vm["main"](*(tvm.runtime.tensor(array) for array in inputs))
    fields = [result] if hasattr(result, "numpy") else list(result)
    return [field.numpy() for field in fields]


def run_onednn(
    module: tvm.IRModule, inputs: Sequence[np.ndarray], *choices: Decision
) -> list[np.ndarray]:
    """Results of `module`, all of it on oneDNN."""
    return call(machine(LowerOnednn()(merged(module, *choices))), inputs)


def run_lowered(
    module: tvm.IRModule, inputs: Sequence[np.ndarray], *choices: Decision
) -> list[np.ndarray]:
    """Results of `module` on oneDNN, its transforms on the CPU where oneDNN has none."""
    target = host_target()
    lowered = LowerCpu(target)(LowerOnednn()(merged(module, *choices)))
    executable = tvm.compile(
        lowered, target, relax_pipeline="default_build", tir_pipeline=KERNEL_PIPELINE
    )
    return call(relax.VirtualMachine(executable, tvm.cpu()), inputs)


def run_reference(module: tvm.IRModule, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Results of `module` by TVM's own, unscheduled code."""
    return run_relax(module, inputs)
