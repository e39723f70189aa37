"""Backend: one compute unit's part in the passes; the entry of the table of units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm_passes.devices import DEVICE_TYPES, HOST, HOST_DEVICE, DeviceId
from tvm_passes.efficiency import Efficiency
from tvm_passes.errors import LayoutselError
from tvm_passes.targets import CrossTarget, cross_target

if TYPE_CHECKING:
    import tvm
    from tvm import relax

    from tvm_passes.algorithms import PlanKernel
    from tvm_passes.decision import Decision
    from tvm_passes.errors import Decline


HOST_UNIT = "cpu"
"""Name of the unit that every machine has: the host's cores."""


def _nothing() -> None:
    return None


def _everywhere(_machine: CrossTarget) -> None:
    return None


def _no_hints(_function: relax.Function, _decision: Decision) -> Mapping[str, float]:
    return {}


def _no_decline(_function: relax.Function, _decision: Decision) -> Decline | None:
    return None


def _no_record(_function: relax.Function, _decision: Decision) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """Abilities that all devices of a unit have, for :mod:`tvm_passes.gpu.legality`."""

    dtypes: frozenset[str] = frozenset({"float32", "int8", "uint8", "int32", "int64", "bool"})
    """Element types of tensors."""
    precisions: tuple[str, ...] = ("f32",)
    """Precisions of kernels."""
    declined: frozenset[str] = frozenset()
    """Operators that TVM's kernels compute wrongly there."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Part of one compute unit in the pipeline.

    Raises
    ------
    LayoutselError
        If it computes on an unsupported kind of device.
    """

    name: str
    """Name of the unit in decisions."""
    supports: Callable[[relax.Function, Decision], Decline | None]
    """Reason why a stage-1 sub-graph function cannot run under a decision; None if it can.

    Fast: it builds nothing.
    """
    lower: Callable[[tvm.target.Target], tvm.transform.Pass] | None = None
    """Pass that replaces this unit's calls in `main` (stage 3 → 4).

    None if the CPU's pass does, with the unit's `planner`.
    """
    planner: PlanKernel | None = None
    """Planner of kernels whose code TVM generates."""
    takes_rest: bool = False
    """True for the unit that is lowered after all others and takes what they leave: the CPU."""
    hints: Callable[[relax.Function, Decision], Mapping[str, float]] = _no_hints
    """Facts for cost models about the code of a supported decision, by name."""
    generic: Callable[[relax.Function, Decision], Decline | None] = _no_decline
    """Reason why a supported decision gets slow generic code; None if the unit has a kernel."""
    record: Callable[[relax.Function, Decision], str] = _no_record
    """Tuning record that a supported decision gets its code from, as text; empty without one."""
    codegen: str | None = None
    """Name of its external code generation, for which neighbouring sub-graphs are merged.

    None if it takes no partitions.
    """
    orders: frozenset[str] = frozenset()
    """Element orders between which its partitions can convert; unused without `codegen`."""
    device: str = HOST
    """Kind of the target whose memory it computes in.

    Tensors are copied to and from a memory that is not the host's.
    """
    abilities: Abilities = Abilities()
    """Abilities of its devices; only units of :mod:`tvm_passes.gpu` use them."""
    identity: Callable[[int], str] = lambda _index: ""
    """Text with all properties of a device that affect measurements, by the device's index."""
    count: Callable[[], int] = lambda: 1
    """Number of its devices on this machine, if it can be used."""
    unavailable: Callable[[], str | None] = _nothing
    """Reason why it cannot be used on this machine; None if it can."""
    unfit: Callable[[CrossTarget], str | None] = _everywhere
    """Reason why it cannot be used on another machine; None if its targets admit it."""
    missing: Callable[[], str | None] = _nothing
    """Loads the libraries that compiled code needs to run; returns the reason of a failure, or
    None.
    """
    plugin: str = ""
    """File name of its native plugin without suffix, in a folder of the unit's name."""
    package: str = ""
    """Package of the library that its code calls; measurements record its version."""
    code: tuple[str, ...] = ()
    """Functions through which its code is reached, each ``module:name``.

    If empty, all of the entry's module. Measurements depend on a digest of this code.
    """
    legalises: bool = False
    """True if TVM generates its code from legalised operators, on which measurements then depend.
    """
    efficiency: Efficiency | None = None
    """Share of the machine's peaks that it attains; None for the default of unknown units."""
    boundary_feature: int | None = None
    """Position among the units with a separate column in learned cost models of boundaries.

    The version of the features fixes it. None for all others: they encode as "other".
    """
    rank: int = 100
    """Position among the built-in units: candidates are offered in ascending order."""

    def __post_init__(self) -> None:
        if self.device not in DEVICE_TYPES:
            raise LayoutselError(
                f"unit {self.name!r}: got device {self.device!r}; expected one of "
                f"{', '.join(DEVICE_TYPES)}"
            )

    def absent(self) -> str | None:
        """Return the reason why it cannot be used on the target machine, or None.

        See :mod:`tvm_passes.targets`.
        """
        machine = cross_target()
        return self.unavailable() if machine is None else self.unfit(machine)

    def devices(self) -> tuple[DeviceId, ...]:
        """Return its devices on the target machine."""
        if self.device == HOST:
            return (HOST_DEVICE,)
        machine = cross_target()
        if machine is None:
            return tuple(DeviceId.of_target(self.device, index) for index in range(self.count()))
        named = map(DeviceId.named, machine.devices)
        return tuple(sorted(one for one in named if one.target_kind == self.device))

    @property
    def has_own_memory(self) -> bool:
        """True if its tensors are in the memory of a device."""
        return self.device != HOST

    @property
    def runtime(self) -> str:
        """Unit whose threads run its kernels.

        Code that TVM generates for the host runs on the CPU's threads.
        """
        return self.name if self.planner is None else HOST_UNIT
