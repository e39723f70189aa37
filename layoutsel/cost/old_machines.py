"""Conversion of machine files of older versions to the present form.

A damaged document stays damaged; the reader then names its first wrong field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutsel.documents import DocumentError, check_version
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import IllegalDevice

VERSION = 2
"""Version of machine files; files of version 1 have no field for their version."""
_READ = (1, VERSION)
_RENEW = "Measure the machine again with 'layoutsel profile --import RESULTS'"
_OPTIONAL: Mapping[str, Any] = {"half_gflops": None, "target": None}
"""Optional fields of a device, with their defaults."""
_LINK = {"link_us": "latency_us", "link_gbps": "gbps"}
"""Fields of a device in older files, and the corresponding field of a link.

They hold for both directions.
"""


def upgraded(document: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Add optional fields, move the links of devices to ``links``, and drop the version.

    Raises
    ------
    DocumentError
        If the file is newer than this layoutsel, or a device has only one field of its link.
    """
    check_version(document, "schema_version", _READ, renew=_RENEW, file=file)
    document = {name: value for name, value in document.items() if name != "schema_version"}
    devices, links = document["devices"], document["links"]
    if not isinstance(devices, dict) or not isinstance(links, list):
        return document
    known = {(one.get("source"), one.get("destination")) for one in links if isinstance(one, dict)}
    made, found = {}, list(links)
    for name, device in devices.items():
        made[name] = device
        if isinstance(device, dict):
            made[name] = {**_OPTIONAL, **{k: v for k, v in device.items() if k not in _LINK}}
            own = _links_of(name, device, file)
            found += [one for one in own if (one["source"], one["destination"]) not in known]
    return {**document, "devices": made, "links": found}


def _links_of(name: str, device: Mapping[str, Any], file: str) -> list[dict[str, Any]]:
    """Convert a device's older fields to links to and from the host; none without such fields."""
    present = [field for field in _LINK if field in device]
    if not present:
        return []
    for field in _LINK:
        if field not in device:
            path = f"$.devices.{name}.{field}"
            raise DocumentError(file, path, "nothing", "this field, or entries of $.links")
    try:
        there = str(DeviceId.named(name))
    except IllegalDevice:
        return []  # the profile rejects the name with a clear error
    rates = {new: device[old] for old, new in _LINK.items()}
    here = str(HOST_DEVICE)
    return [
        {"source": source, "destination": destination, **rates}
        for source, destination in ((here, there), (there, here))
    ]
