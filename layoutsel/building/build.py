"""Lowering of decisions to kernels and partitions, and code generation; no planning.

A partition that fails to build falls back to the CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax

from layoutsel.building import limited_cuda
from layoutsel.building.functions import Functions
from layoutsel.device.entry_points import EntryPoint
from layoutsel.device.signature import Signature
from tvm_passes import cuda
from tvm_passes.arrays import array_of
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import KERNEL_PIPELINE, host_target
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.devices import HOST, HOST_DEVICE, DeviceId
from tvm_passes.errors import BuildError, Declined
from tvm_passes.ir import (
    Expr,
    entry_points,
    leaves,
    main_bindings,
    op_name,
    static_shape,
    tensor_types,
)
from tvm_passes.lift_weights import (
    LiftWeights,
    Weight,
    collect_weights,
    weights_of,
    weights_read,
)
from tvm_passes.pipeline import build_context, lower, lower_stages
from tvm_passes.place_devices import devices_of
from tvm_passes.split_stages import StagePart
from tvm_passes.stages import Stages, entry_name
from tvm_passes.units.entry import HOST_UNIT
from tvm_passes.weight_pool import packed_constant

logger = logging.getLogger(__name__)

CPU = Decision(unit=HOST_UNIT)
"""Decision of sub-graphs that their unit fails to build."""


@dataclass(frozen=True)
class Lowered:
    """A module whose `main` calls kernels and partitions, with its weights."""

    module: tvm.IRModule
    """Module with its weights as parameters."""
    target: tvm.target.Target
    """Target of the host's code."""
    weights: tuple[np.ndarray, ...]
    """Packed weights, in the order of the parameters."""
    decisions: Mapping[SubgraphId, Decision]
    """Lowered decisions: those of the plan, except for sub-graphs that fell back."""
    calls: tuple[tuple[str, str], ...] = ()
    """Calls of `main` in order: names of the function and of its sub-graph or transform.

    The second name is empty for a partition, which holds the names of its sub-graphs itself.
    """
    devices: tuple[DeviceId, ...] = (HOST_DEVICE,)
    """Devices of the virtual machine, in order."""
    places: tuple[DeviceId, ...] = ()
    """Device that reads each weight."""
    readers: tuple[str, ...] = ()
    """First sub-graph or transform that reads each weight; empty for a partition."""
    entries: tuple[EntryPoint, ...] = ()
    """Entry point of each stage; empty if `main` is the only entry point."""


def lower_decisions(
    functions: Functions,
    decisions: Mapping[SubgraphId, Decision],
    target: tvm.target.Target | None = None,
    order: Sequence[SubgraphId] = (),
    stages: Stages | None = None,
    staying: Collection[str] = (),
) -> Lowered:
    """Generate the kernels and partitions that the decisions require.

    A sub-graph that its unit fails to build goes to the CPU in the plain layout, with a warning
    that names it. Transforms that a device fails to build move to the host.

    Not for two threads at once, as TVM's block builders share a stack.

    Parameters
    ----------
    functions
        Functions of the sub-graphs.
    decisions
        Decision of each sub-graph.
    target
        Target of the host's code; this machine by default.
    order
        Order of the calls; see :func:`tvm_passes.pipeline.lower`.
    stages
        Stages that become separate entry points.
    staying
        Stages whose tensors stay on a device that they share; see
        :func:`tvm_passes.pipeline.lower_stages`.

    Raises
    ------
    BuildError
        If the CPU fails as well.
    """
    target = target or host_target()
    decisions = dict(decisions)
    not_transforming: set[str] = set()
    while True:
        try:
            module, entries = _lower(
                functions.module,
                decisions,
                target,
                stages,
                staying,
                frozenset(not_transforming),
                order,
            )
            break
        except (BuildError, Declined) as error:
            if error.transform and _transforms(error.unit) and error.unit not in not_transforming:
                logger.warning("%s; the host transforms what lies on %r", error, error.unit)
                not_transforming.add(error.unit)
                continue
            failed = SubgraphId(error.subgraph)
            if decisions.get(failed, CPU) == CPU:
                raise
            logger.warning("%s; it falls back to the CPU in plain layout", error)
            decisions[failed] = CPU
    calls = tuple(_calls(module))
    found = collect_weights(module)
    read = weights_read(module)
    return Lowered(
        LiftWeights()(module),
        target,
        tuple(array_of(packed_constant(array_of(weight.constant))) for weight in found),
        decisions,
        calls,
        devices_of(module),
        tuple(weight.device for weight in found),
        tuple(_readers(module, found)),
        tuple(replace(entry, weights=read[entry.function]) for entry in entries),
    )


def _lower(
    module: tvm.IRModule,
    decisions: Mapping[SubgraphId, Decision],
    target: tvm.target.Target,
    stages: Stages | None,
    staying: Collection[str],
    not_transforming: frozenset[str],
    order: Sequence[SubgraphId],
) -> tuple[tvm.IRModule, tuple[EntryPoint, ...]]:
    if not stages:
        return lower(module, decisions, target, not_transforming, order), ()
    lowered, parts = lower_stages(
        module, decisions, target, stages, not_transforming, order, staying
    )
    return lowered, tuple(_entry_point(part) for part in parts)


def _entry_point(part: StagePart) -> EntryPoint:
    main = part.module["main"]
    types = [param.ty for param in main.params], tensor_types(main.body.body.ty)
    inputs, outputs = (
        tuple(
            Signature(
                name=name,
                shape=static_shape(ty),
                dtype=str(ty.dtype),
                layout=part.layout(name),
            )
            for name, ty in zip(names, of, strict=True)
        )
        for names, of in zip((part.inputs, part.outputs), types, strict=True)
    )
    return EntryPoint(
        name=part.name, function=entry_name(part.name), inputs=inputs, outputs=outputs
    )


def generate_code(module: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Compile a lowered module; several threads may compile different modules at once."""
    is_cuda = any(device.kind == "cuda" for device in devices_of(module))
    compiling = cuda.compiling(limited_cuda.to_ptx) if is_cuda else nullcontext()
    with build_context(module), compiling:
        return tvm.compile(
            module, target, relax_pipeline="default_build", tir_pipeline=KERNEL_PIPELINE
        )


def _transforms(unit: str) -> bool:
    """True if the unit is on a device; the host can transform its tensors as well."""
    return unit in BACKENDS and BACKENDS[unit].device != HOST


def _bindings(module: tvm.IRModule) -> Iterator[relax.VarBinding]:
    """Yield the bindings of all entry points."""
    for name in entry_points(module):
        yield from main_bindings(module[name])


def _calls(module: tvm.IRModule) -> Iterator[tuple[str, str]]:
    for binding in _bindings(module):
        if op_name(binding.value) in ("call_tir", "call_tir_inplace"):
            label = binding.var.name.rsplit("_", 1)[0]
            yield binding.value.args[0].name_hint, label
        elif op_name(binding.value) == "call_dps_packed":
            yield str(binding.value.args[0].global_symbol), ""


def _readers(module: tvm.IRModule, weights: Sequence[Weight]) -> Iterator[str]:
    """Yield the label of the first call that reads each weight."""
    labels: dict[Weight, str] = {}
    copies: dict[Expr, Weight] = {}
    for binding in _bindings(module):
        if op_name(binding.value) == "to_vdevice":
            copies.update((binding.var, weight) for weight in weights_of(binding.value))
            continue
        label = binding.var.name.rsplit("_", 1)[0]
        if op_name(binding.value) == "call_dps_packed":
            label = ""
        read = [copies[leaf] for leaf in leaves(binding.value) if leaf in copies]
        for weight in (*read, *weights_of(binding.value)):
            labels.setdefault(weight, label)
    return (labels.get(weight, "") for weight in weights)
