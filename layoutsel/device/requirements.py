"""Checks that this machine can run code from another machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable

import tvm_ffi

from layoutsel.device.manifest import Requirements
from layoutsel.device.units import is_packable, missing
from tvm_passes.devices import DeviceId, count_devices
from tvm_passes.errors import LayoutselError, UnitUnavailable
from tvm_passes.isa import cpu_flags
from tvm_passes.runtime_library import BESIDE, runtime_version


def check(what: str, requires: Requirements) -> None:
    """Check a bundle's requirements against this machine, and load its units.

    Parameters
    ----------
    what
        Name of the file, for error messages.
    requires
        Requirements of its code.

    Raises
    ------
    LayoutselError
        Names the first unmet requirement and this machine's property.
    """
    if platform.machine() != requires.architecture:
        raise LayoutselError(
            f"{what} was built for {requires.architecture}: this machine is {platform.machine()}; "
            "bundle the model with --target for it"
        )
    present = {"apache-tvm": runtime_version(), "apache-tvm-ffi": tvm_ffi.__version__}
    for name, version in present.items():
        if requires.versions.get(name) != version:
            raise LayoutselError(
                f"{what} was built with {name} {requires.versions.get(name)}: this is {version}; "
                "use the same on both"
            )
    cores = len(os.sched_getaffinity(0))
    if requires.threads > cores:
        raise LayoutselError(
            f"{what} was built for {requires.threads} threads: this process may use {cores} cores; "
            f"bundle the model with --threads {cores}"
        )
    check_features(what, requires.features)
    check_units(what, requires.units)
    check_devices(what, map(DeviceId.named, requires.devices))


def check_features(what: str, features: Iterable[str]) -> None:
    """Check for the instruction sets `features`; raises :class:`UnitUnavailable`."""
    lacking = sorted(set(features) - cpu_flags())
    if lacking:
        raise UnitUnavailable(
            f"{what} was built for instruction sets that this machine lacks: {', '.join(lacking)}; "
            f"compile the model on this machine, or with --target for it"
        )


def check_units(what: str, units: Iterable[str], advice: str = "") -> None:
    """Load the libraries of `units`; raises :class:`UnitUnavailable` that ends with `advice`."""
    for unit in units:
        if reason := missing(unit):
            can_pack = is_packable(unit) and BESIDE.exists()  # it is a runtime that we wrote
            hint = f"; or pack it: layoutsel runtime --with {unit}" if can_pack else ""
            raise UnitUnavailable(f"{what} needs the unit {unit!r}: {reason}{hint}{advice}")


def check_devices(what: str, devices: Iterable[DeviceId], advice: str = "") -> None:
    """Check that this machine has all `devices` of a kind, except the first.

    :func:`check_units` checks the first. Raises :class:`UnitUnavailable` that ends with `advice`.
    """
    needed: dict[str, int] = {}
    for device in devices:
        needed[device.kind] = max(needed.get(device.kind, 0), device.index)
    for kind, last in needed.items():
        if last and (count := count_devices(kind)) <= last:
            found = (
                f"{kind}/0"
                if count == 1
                else f"{kind}/0 to {kind}/{count - 1}"
                if count
                else "none"
            )
            raise UnitUnavailable(
                f"{what} needs the device {kind}/{last}: this machine has {found}; compile the "
                f"model again with the devices at hand{advice}"
            )
