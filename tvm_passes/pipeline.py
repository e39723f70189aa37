"""Lowering of a module and its decisions to the input of TVM's code generation.

Docstrings name the form of a module by its stage of lowering:

- 0: `main` contains operators, normalised after the import.
- 1: `main` calls one function per sub-graph.
- 2: these functions have their decided unit and layout; `main` also calls layout transforms.
- 3: neighbouring sub-graphs are merged into partitions, on units that compile these as a whole.
- 4: `main` calls kernels of the units.
- 5: weights are parameters of `main`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import tvm
from tvm import relax

from tvm_passes.backends import (
    BACKENDS,
    codegens,
    device_units,
    lowering_order,
    partition_orders,
)
from tvm_passes.cancel_transforms import CancelTransforms
from tvm_passes.check import check_decided, check_lowered
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import whole_errors
from tvm_passes.instruments import nested_instruments
from tvm_passes.merge_partitions import MergePartitions
from tvm_passes.name_subgraphs import NameSubgraphs
from tvm_passes.normalize import normalize
from tvm_passes.order_subgraphs import OrderSubgraphs
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.place_devices import PlaceDevices, devices_of
from tvm_passes.rewrite_layouts import RewriteLayouts, functions_of
from tvm_passes.split_stages import StagePart, join_stages, place_of, split_stages
from tvm_passes.stages import Stages, entry_name

PREFERENCES = (
    Decision(unit="onednn", layout="NHWC"),
    Decision(unit="onednn"),
    Decision(unit="cpu", layout="NHWC"),
    Decision(unit="cpu"),
)
"""Candidates of :func:`default_decisions`, best first."""


def default_decisions(module: tvm.IRModule) -> dict[SubgraphId, Decision]:
    """Choose the first legal decision of :data:`PREFERENCES` for each sub-graph, without a plan."""
    preferences = [p for p in PREFERENCES if BACKENDS[p.unit].absent() is None]
    return {
        subgraph: next(
            (p for p in preferences if BACKENDS[p.unit].supports(function, p) is None),
            PREFERENCES[-1],
        )
        for subgraph, function in functions_of(module).items()
    }


def lower(
    module: tvm.IRModule,
    decisions: Mapping[SubgraphId, Decision],
    target: tvm.target.Target,
    not_transforming: frozenset[str] = frozenset(),
    order: Sequence[SubgraphId] = (),
) -> tvm.IRModule:
    """Lower a partitioned module (stage 1) to calls of units (stage 4).

    The host transforms the layouts of tensors on the devices `not_transforming`. A non-empty
    `order` sets the order of sub-graph calls, and keeps partitions from crossing calls of devices.

    Raises
    ------
    BuildError, Declined
        If a unit fails; the error names the unit, and the sub-graph or transform.
    """
    with whole_errors():
        module = _decided(module, decisions, not_transforming, order)
        return lower_units(_merged(module, order), target)


def lower_stages(
    module: tvm.IRModule,
    decisions: Mapping[SubgraphId, Decision],
    target: tvm.target.Target,
    stages: Stages,
    not_transforming: frozenset[str] = frozenset(),
    order: Sequence[SubgraphId] = (),
    staying: Collection[str] = (),
) -> tuple[tvm.IRModule, list[StagePart]]:
    """Lower a partitioned module to calls of units, with an entry point for each of the `stages`.

    Tensors between stages in `staying` that are on one device stay in its memory; all others are in
    the host's. All else is as in :func:`lower`.

    Returns
    -------
    module
        All entry points; see :func:`tvm_passes.split_stages.entry_name`.
    parts
        Each stage separately, with its inputs and outputs.
    """
    with whole_errors():
        decided = _decided(module, decisions, not_transforming, order)
        devices = _devices_of_stages({name: stages[name] for name in staying}, decisions)
        parts = []
        for part in split_stages(decided, stages, devices):
            merged = _merged(part.module, order, prefix=f"{entry_name(part.name)}_p")
            lowered = _lowered_units(merged, target)
            inputs, results = (tuple(map(place_of, of)) for of in (part.inputs, part.outputs))
            placed = PlaceDevices(inputs=inputs, results=results)(lowered)
            parts.append(replace(part, module=placed))
        return join_stages(parts), parts


def _devices_of_stages(
    stages: Stages, decisions: Mapping[SubgraphId, Decision]
) -> dict[str, DeviceId]:
    """Return the device of each stage whose sub-graphs are all on one."""
    found = {name: {decisions[id_].device for id_ in held} for name, held in stages.items()}
    single = {name: devices.pop() for name, devices in found.items() if len(devices) == 1}
    return {name: device for name, device in single.items() if not device.is_host}


def _decided(
    module: tvm.IRModule,
    decisions: Mapping[SubgraphId, Decision],
    not_transforming: frozenset[str],
    order: Sequence[SubgraphId],
) -> tvm.IRModule:
    """Lower a partitioned module to decided layouts (stage 2), checked, in the given order."""
    if order:
        module = OrderSubgraphs(order)(module)
    module = decide(module, decisions, not_transforming)
    check_decided(module)
    return module


def _merged(module: tvm.IRModule, order: Sequence[SubgraphId], prefix: str = "p") -> tvm.IRModule:
    """Lower decided layouts to merged partitions (stage 3)."""
    return MergePartitions(codegens(), device_units() if order else (), prefix)(module)


def decide(
    module: tvm.IRModule,
    decisions: Mapping[SubgraphId, Decision],
    not_transforming: frozenset[str] = frozenset(),
) -> tvm.IRModule:
    """Lower a partitioned module (stage 1) to decided layouts (stage 2)."""
    devices = device_units() - not_transforming
    return RewriteLayouts(decisions, partition_orders(), devices)(module)


def lower_units(
    module: tvm.IRModule, target: tvm.target.Target, outside: DeviceId = HOST_DEVICE
) -> tvm.IRModule:
    """Lower merged partitions (stage 3) to calls of units (stage 4).

    `outside` is the device of the caller's tensors.
    """
    return PlaceDevices(outside)(_lowered_units(module, target))


def _lowered_units(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """Lower merged partitions to calls of units, without the copies between devices."""
    used = {str(f.attrs.get("layoutsel.unit")) for f in module.functions.values() if f.attrs}
    for backend in lowering_order():
        # Asking for an unused device would start its driver.
        if backend.lower is None or (backend.has_own_memory and backend.name not in used):
            continue
        if backend.absent() is None:
            module = backend.lower(target)(module)
    check_lowered(module)
    return module


def build_context(module: tvm.IRModule) -> tvm.transform.PassContext:
    """Return the context in which TVM's ``default_build`` must compile a lowered `module`."""
    # With several devices, TVM's memory planner gave a tensor the storage of a tensor on another
    # device if the types of the host's tensors named no device. The runtime's pools reuse memory
    # without the planner.
    current = tvm.transform.PassContext.current()
    left_out = ["StaticPlanBlockMemory"] if len(devices_of(module)) > 1 else []
    return tvm.transform.PassContext(
        opt_level=current.opt_level,
        disabled_pass=[*current.disabled_pass, *left_out],
        instruments=nested_instruments(),
        config=current.config,
    )


def layoutsel_pipeline(
    decisions: Mapping[SubgraphId, Decision] | None = None,
) -> tvm.transform.Pass:
    """Make the Relax pipeline ``"layoutsel"`` of ``tvm.compile``.

    Parameters
    ----------
    decisions
        One for each sub-graph, by the id that ``NameSubgraphs`` or ``PartitionSubgraphs`` assigns;
        None for :func:`default_decisions`.
    """

    @tvm.transform.module_pass(opt_level=0, name="layoutsel")
    def pipeline(module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        module = PartitionSubgraphs()(CancelTransforms()(normalize(module)))
        if decisions is None or not decisions.keys() <= functions_of(module).keys():
            module = NameSubgraphs()(module)
        chosen = default_decisions(module) if decisions is None else decisions
        module = lower(module, chosen, tvm.target.Target.current() or host_target())
        with build_context(module):
            return relax.get_pipeline("default_build")(module)

    return pipeline
