"""Targets of code generation for another machine, from its profile."""

from __future__ import annotations

from tvm.target import Target

from layoutsel.cost.device_peaks import DevicePeaks
from layoutsel.cost.samples import MachineProfile
from tvm_passes.cpu.host import generation
from tvm_passes.devices import DeviceId
from tvm_passes.errors import LayoutselError
from tvm_passes.targets import CrossTarget

_LEAST = "x86-64"
"""LLVM's name of the CPU whose extensions all x86-64 CPUs have."""


def cross_target_of(profile: MachineProfile) -> CrossTarget:
    """Make the targets of a machine and its devices.

    Raises
    ------
    LayoutselError
        If TVM does not know the target of a device.
    """
    return CrossTarget(
        host=_host(profile),
        devices={name: _target(name, device) for name, device in profile.devices.items()},
    )


def _host(profile: MachineProfile) -> Target:
    isa = frozenset(profile.machine.isa)
    if "asimd" in isa:
        config = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+neon"]}
    else:
        mcpu, features = generation(_LEAST, isa)
        config = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": mcpu}
        config |= {"mattr": [*features]} if features else {}
    return Target({**config, "num-cores": profile.threads})


def _target(name: str, device: DevicePeaks) -> Target:
    kind = DeviceId.named(name).target_kind
    text = device.target or kind
    try:
        target = Target(text)
    except Exception as error:  # TVM's parser raises exceptions of many types
        raise LayoutselError(
            f"device {name!r} of the machine: got target {text!r}; expected one that TVM knows, "
            f"such as 'opencl' or 'nvidia/nvidia-a100'"
        ) from error
    if target.kind.name != kind:
        raise LayoutselError(
            f"device {name!r} of the machine: got a target of kind {target.kind.name!r}; "
            f"expected {kind!r}"
        )
    return target
