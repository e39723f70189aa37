"""The table of compute units as the passes see them: what each supports and how it is lowered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import tvm
from tvm import relax

from tvm_passes import amx, cpu, cuda, onednn, opencl
from tvm_passes.cpu.kernels import Planner
from tvm_passes.decision import Decision
from tvm_passes.devices import HOST, HOST_DEVICE, DeviceId, count_devices, register_unit
from tvm_passes.errors import Decline
from tvm_passes.gpu import legality as device
from tvm_passes.gpu.lower import LowerGpu
from tvm_passes.gpu.target import device_target
from tvm_passes.onednn.orders import ORDERS
from tvm_passes.targets import CrossTarget, absent_on_cross_target, cross_target


def _always() -> None:
    return None


def _everywhere(_machine: CrossTarget) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One compute unit's part in the pipeline."""

    name: str
    """As decisions name it."""
    supports: Callable[[relax.Function, Decision], Decline | None]
    """True if a stage-1 sub-graph function may run under a decision; the reason where not. Fast: builds nothing."""
    lower: Callable[[tvm.target.Target], tvm.transform.Pass] | None = None
    """The pass that replaces this unit's calls in `main` (stage 3 → 4); None if the CPU's does, with its `planner`."""
    planner: Planner | None = None
    """What plans kernels that TVM generates the code of."""
    hints: Callable[[relax.Function, Decision], Mapping[str, float]] = lambda _function, _decision: {}
    """What a cost model may want to know of the code that a supported decision gets, by name."""
    generic: Callable[[relax.Function, Decision], Decline | None] = lambda _function, _decision: (
        None
    )
    """Why a supported decision has no kernel of the unit's own and gets generic code, which is slow; None if it has."""
    record: Callable[[relax.Function, Decision], str] = lambda _function, _decision: ""
    """The tuning record, as text, that a supported decision gets its code from; empty where it needs none."""
    codegen: str | None = None
    """Name of its external code generation; where given, neighbouring sub-graphs are merged into partitions."""
    orders: frozenset[str] = frozenset()
    """Orders of elements between which its partitions transform; of no use without `codegen`."""
    device: str = HOST
    """Kind of the target whose memory it computes in; where it is not the host's, tensors are copied there and back."""
    identity: Callable[[int], str] = lambda _index: ""
    """All that measurements on a device depend on, by the device's number."""
    count: Callable[[], int] = lambda: 1
    """Number of its devices on this machine, where it can be used."""
    unavailable: Callable[[], str | None] = _always
    """Why it cannot be used on this machine; None if it can."""
    unfit: Callable[[CrossTarget], str | None] = _everywhere
    """Why it cannot be used on another machine; None if it can, as far as its targets tell."""

    def absent(self) -> str | None:
        """Why it cannot be used on the machine that code is generated for (:mod:`tvm_passes.targets`); None if it can."""
        machine = cross_target()
        return self.unavailable() if machine is None else self.unfit(machine)

    def devices(self) -> tuple[DeviceId, ...]:
        """Its devices on the machine that code is generated for."""
        if self.device == HOST:
            return (HOST_DEVICE,)
        machine = cross_target()
        if machine is None:
            return tuple(DeviceId.of_target(self.device, index) for index in range(self.count()))
        named = map(DeviceId.named, machine.devices)
        return tuple(sorted(one for one in named if one.target_kind == self.device))

    @property
    def runtime(self) -> str:
        """The unit that its kernels run like: all that TVM generates code for are the CPU's threads."""
        return self.name if self.planner is None else "cpu"


def _device(
    kind: str,
    unavailable: Callable[[], str | None],
    identity: Callable[[int], str],
) -> Backend:
    """A unit of the same name as the kind of its target."""
    return Backend(
        name=kind,
        supports=device.supports,
        record=device.record,
        lower=lambda host: LowerGpu(kind, partial(device_target, kind, host)),
        device=kind,
        identity=identity,
        count=partial(count_devices, kind),
        unavailable=unavailable,
        unfit=lambda _machine: absent_on_cross_target(kind),
    )


BACKENDS: dict[str, Backend] = {
    "onednn": Backend(
        name="onednn",
        supports=onednn.supports,
        lower=lambda _target: onednn.LowerOnednn(),
        hints=onednn.hints,
        codegen="layoutsel_onednn",
        orders=ORDERS,
        unavailable=onednn.available,
        unfit=lambda machine: onednn.available() or amx.not_x86(machine.host),
    ),
    "amx": Backend(
        name="amx",
        supports=amx.supports,
        planner=amx.plan_amx,
        hints=amx.hints,
        unavailable=amx.unavailable,
        unfit=lambda machine: amx.unfit(machine.host),
    ),
    "cuda": _device("cuda", cuda.unavailable, cuda.identity),
    "opencl": _device("opencl", opencl.unavailable, opencl.identity),
    "cpu": Backend(
        name="cpu",
        supports=cpu.supports,
        lower=lambda target: cpu.LowerCpu(target, _planners()),
        planner=cpu.plan_subgraph,
        hints=cpu.hints,
        generic=cpu.generic,
        record=cpu.record,
    ),
}
"""By name. The CPU is lowered last: it takes whatever is left."""


def _planners() -> dict[str, Planner]:
    """The planners of the units at hand."""
    return {
        backend.name: backend.planner
        for backend in BACKENDS.values()
        if backend.planner is not None and backend.absent() is None
    }


def register_backend(backend: Backend) -> None:
    """Add a compute unit, before the CPU in the order of lowering."""
    last = BACKENDS.pop("cpu")
    BACKENDS[backend.name] = backend
    register_unit(backend.name, backend.device)
    BACKENDS["cpu"] = last
