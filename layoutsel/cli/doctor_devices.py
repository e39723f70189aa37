"""Devices with a memory of their own, as ``layoutsel doctor`` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layoutsel.units.base import Unit


def examine_devices() -> dict[str, dict[str, Any]]:
    """Every device of the units at hand by its id, with what was measured of it before; drivers are asked."""
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
    """Name and peaks of a device; no peaks if it was not measured."""
    from layoutsel.cost.device_peaks import known_device_peaks
    from tvm_passes.devices import device_name

    backend = unit.backend
    peaks = known_device_peaks(unit.name, backend.identity(index))
    device = backend.devices()[index]
    return {"name": device_name(device), "peaks": None if peaks is None else str(peaks)}


def shown(device: dict[str, Any]) -> str:
    """One device as a cell of a table."""
    return "; ".join([device["name"], *filter(None, [device["peaks"]]), *device["links"]])
