"""Single candidates: one sub-graph under one decision, as a module to be timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call

from layoutsel.building.build import generate_code
from layoutsel.device.candidate import LoadedCandidate
from layoutsel.device.tensors import random_tensor
from layoutsel.device.virtual_machine import virtual_machine
from layoutsel.runtime.arrays import placed, to_tensor
from layoutsel.runtime.linking import runnable
from tvm_passes.arrays import array_of
from tvm_passes.decided_functions import decide_function, transform_function
from tvm_passes.decision import Decision, SubgraphId, parse_placed_unit
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.ir import Expr, static_shape, tensor_types
from tvm_passes.lift_weights import LiftWeights, collect_weights
from tvm_passes.merge_partitions import MergePartitions
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.pipeline import decide, lower_units
from tvm_passes.place_devices import devices_of

STREAM_BYTES = 12 << 20
"""Bytes of weights over which a candidate is timed: more than the second-level caches hold.

Each sub-graph of a model has its own weights, which are not in the cache when it starts. A
candidate is therefore timed over several copies with different weights.
"""
MAX_COPIES = 8
"""Maximum number of copies of a candidate, to limit the time of building."""


INPUT_SEED = 1000
"""Seed of the first input; further inputs use the following seeds."""


@dataclass(frozen=True)
class TensorType:
    """Type of an argument of a compiled function."""

    shape: tuple[int, ...]
    """Shape of the tensor, as the layout stores it."""
    dtype: str
    """Element type of the tensor."""


@dataclass(frozen=True)
class Built:
    """Code of a candidate with its arguments."""

    executable: relax.VMExecutable
    """Compiled code."""
    inputs: tuple[TensorType, ...]
    """Types of the inputs, whose values do not matter."""
    weights: tuple[tuple[np.ndarray, DeviceId], ...]
    """Arguments after the inputs, each with the device that reads it."""
    devices: tuple[DeviceId, ...]
    """Devices of the virtual machine, in order."""
    device: DeviceId
    """Device of the inputs."""
    copies: int
    """Number of runs of the sub-graph in one call of `main`."""

    @cached_property
    def ready(self) -> LoadedCandidate:
        """Candidate loaded on this machine, with random inputs."""
        inputs = [
            random_tensor(ty.shape, ty.dtype, INPUT_SEED + index, self.device)
            for index, ty in enumerate(self.inputs)
        ]
        weights = [placed(to_tensor(weight), device) for weight, device in self.weights]
        return LoadedCandidate(
            machine=virtual_machine(runnable(self.executable), self.devices),
            arguments=(*inputs, tvm.runtime.convert(weights)),
            copies=self.copies,
            device=self.device,
        )


def random_array(ty: relax.TensorType, seed: int) -> np.ndarray:
    """Make seeded random values: normal for floats, 0 or 1 for integers."""
    generator = np.random.default_rng(seed)
    shape = static_shape(ty)
    if "float" in str(ty.dtype):
        return (generator.standard_normal(shape) * 0.1).astype(str(ty.dtype))
    return generator.integers(0, 2, shape).astype(str(ty.dtype))


def copies_for(function: relax.Function) -> int:
    """Compute the number of copies whose weights exceed the second-level cache."""
    count = int(function.attrs["layoutsel.num_activations"])
    nbytes = sum(4 * int(np.prod(static_shape(param.ty))) for param in function.params[count:])
    return 1 if nbytes < (64 << 10) else min(MAX_COPIES, STREAM_BYTES // nbytes + 1)


def _calls_module(function: relax.Function, activations: int, copies: int) -> tvm.IRModule:
    """Make a module whose `main` calls a decided function `copies` times.

    Each call has its own random weights.
    """
    builder = relax.BlockBuilder()
    callee = builder.add_func(function, "candidate")
    params = [relax.Var(f"x{i}", param.ty) for i, param in enumerate(function.params[:activations])]
    with builder.function("main", params):
        with builder.dataflow():
            results: list[Expr] = []
            for copy in range(copies):
                weights = [
                    relax.const(random_array(param.ty, copy), str(param.ty.dtype))
                    for param in function.params[activations:]
                ]
                results.append(builder.emit(Call(callee, [*params, *weights])))
            output = builder.emit_output(results[0] if copies == 1 else relax.Tuple(results))
        builder.emit_func_output(output)
    return builder.finalize()


def _finish(
    module: tvm.IRModule, target: tvm.target.Target, copies: int, device: DeviceId = HOST_DEVICE
) -> Built:
    """Build a module whose inputs and results are on `device`, so that no copies are timed."""
    module = lower_units(MergePartitions()(module), target, device)
    types = [ty for param in module["main"].params for ty in tensor_types(param.ty)]
    return Built(
        executable=generate_code(LiftWeights()(module), target),
        inputs=tuple(TensorType(static_shape(ty), str(ty.dtype)) for ty in types),
        weights=tuple(
            (array_of(weight.constant), weight.device) for weight in collect_weights(module)
        ),
        devices=devices_of(module),
        device=device,
        copies=copies,
    )


def build_candidate(
    function: relax.Function,
    decision: Decision,
    target: tvm.target.Target,
    copies: int | None = None,
) -> Built:
    """Build one sub-graph alone under `decision`; arguments and results have its layouts.

    Parameters
    ----------
    function
        Function of the sub-graph in the partitioned module, in plain layouts.
    decision
        Decision of the candidate.
    target
        Target of the host's code.
    copies
        Number of runs, each with its own weights; by default :func:`copies_for`.

    Raises
    ------
    BuildError, Declined
        If the unit fails or declines.
    """
    copies = copies or copies_for(function)
    decided = decide_function(function, decision)
    activations = int(function.attrs["layoutsel.num_activations"])
    return _finish(_calls_module(decided, activations, copies), target, copies, decision.device)


def build_transform(
    shape: tuple[int, ...],
    dtype: str,
    source: str,
    destination: str,
    where: str,
    target: tvm.target.Target,
) -> Built:
    """Build a layout transform alone.

    Parameters
    ----------
    shape, dtype
        Logical shape and element type of the tensor.
    source, destination
        Layouts to transform between.
    where
        Placed unit that makes the transform.
    target
        Target of the host's code.
    """
    function = transform_function(relax.TensorType(shape, dtype), source, destination, where)
    return _finish(_calls_module(function, 1, 1), target, 1, parse_placed_unit(where)[1])


def build_chain(units: Sequence[str], target: tvm.target.Target) -> Built:
    """Build a chain of tiny element-wise sub-graphs, one on each of `units`, in order.

    Its time shows the cost of hand-overs; see :func:`layoutsel.device.timing.time_crossing`.
    """
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 16), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value: Expr = x
            for _ in units[:-1]:
                value = builder.emit(relax.op.exp(value))
            output = builder.emit_output(relax.op.exp(value))
        builder.emit_func_output(output)
    module = PartitionSubgraphs(max_operators=1)(builder.finalize())
    decisions = {SubgraphId(f"s{i}"): Decision(unit=unit) for i, unit in enumerate(units)}
    return _finish(decide(module, decisions), target, 1)
