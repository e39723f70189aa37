"""Devices with their own memory, for ``layoutsel doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layoutsel.units.base import Unit


def examine_devices() -> dict[str, dict[str, Any]]:
    """Ask the drivers for all devices, by id, with their earlier measurements."""
    from layoutsel.cost.link_probing import known_links
    from layoutsel.units.base import units

    usable = [one for one in units().values() if one.backend.unavailable() is None]
    found: dict[str, dict[str, Any]] = {}
    for unit in usable:
        devices = [device for device in unit.backend.devices() if not device.is_host]
        links = known_links({device: unit.backend.identity(device.index) for device in devices})
        for device in devices:
            found[str(device)] = {
                "unit": unit.name,
                **_described(unit, device.index),
                "links": [str(link) for link in links if link.source == device],
            }
    return found


def _described(unit: Unit, index: int) -> dict[str, Any]:
    """Name and peak rates of a device; None for rates that were not measured."""
    from layoutsel.cost.device_peaks import known_device_peaks
    from tvm_passes.devices import device_name

    backend = unit.backend
    peaks = known_device_peaks(unit.name, backend.identity(index))
    device = backend.devices()[index]
    return {"name": device_name(device), "peaks": None if peaks is None else str(peaks)}


def shown(device: dict[str, Any]) -> str:
    """Text of one device, for a table."""
    return "; ".join([device["name"], *filter(None, [device["peaks"]]), *device["links"]])
