"""What code for another machine is generated for, from what is known of it."""

from __future__ import annotations

from tvm.target import Target

from layoutsel.cost.device_peaks import DevicePeaks
from layoutsel.cost.samples import MachineProfile
from tvm_passes.cpu.host import generation
from tvm_passes.devices import DeviceId
from tvm_passes.errors import LayoutselError
from tvm_passes.targets import CrossTarget

_LEAST = "x86-64"
"""LLVM's name of the CPU whose extensions all others have."""


def cross_target_of(profile: MachineProfile) -> CrossTarget:
    """The targets of a machine and its devices.

    Raises
    ------
    LayoutselError
        If TVM knows no such target.
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
    except Exception as error:  # TVM's parser raises whatever comes
        raise LayoutselError(
            f"device {name!r} of the machine: got target {text!r}; expected one that TVM knows, such as 'opencl' "
            f"or 'nvidia/nvidia-a100'"
        ) from error
    if target.kind.name != kind:
        raise LayoutselError(
            f"device {name!r} of the machine: got a target of kind {target.kind.name!r}; expected {kind!r}"
        )
    return target
