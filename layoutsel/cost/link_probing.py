"""Links of this machine, measured once and then read from the user's cache folder."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layoutsel.cost.alike import first_alike, pair_alike
from layoutsel.cost.links import DeviceLink
from layoutsel.cost.probing import ask, kept, remembered
from layoutsel.documents import from_json
from layoutsel.errors import DeviceError
from tvm_passes.devices import HOST_DEVICE, DeviceId, is_direct
from tvm_passes.errors import LayoutselError

Pair = tuple[DeviceId, DeviceId]
"""Source and destination of a link."""


@dataclass(frozen=True, kw_only=True)
class MeasuredLinks:
    """Result of a probe."""

    links: tuple[DeviceLink, ...]
    """Measured links."""


def machine_links(
    identities: Mapping[DeviceId, str], *, folder: Path | None = None
) -> tuple[DeviceLink, ...]:
    """Return the links between the host and the devices, and between devices of one kind.

    One pair stands for all pairs of identical devices. The first call measures; later ones read
    from `folder`.

    Parameters
    ----------
    identities
        Identity of each device: all properties that measurements depend on.
    folder
        Folder of the results; by default the user's cache folder.

    Raises
    ------
    DeviceError
        If the measuring process fails.
    """
    stand_ins = _stand_ins(identities)
    wanted = tuple(dict.fromkeys(stand_ins.values()))
    if not wanted:
        return ()
    name = _name(identities)
    found = remembered(MeasuredLinks, name, lambda: probe_links(wanted), folder)
    return tuple(_spread(found, stand_ins))


def known_links(
    identities: Mapping[DeviceId, str], *, folder: Path | None = None
) -> tuple[DeviceLink, ...]:
    """Return the links of :func:`machine_links` if they were measured before, else none."""
    found = kept(MeasuredLinks, _name(identities), folder)
    return () if found is None else tuple(_spread(found, _stand_ins(identities)))


def probe_links(pairs: Sequence[Pair]) -> MeasuredLinks:
    """Measure copies in a separate process; takes about a second for each pair.

    Raises
    ------
    DeviceError
        If the process fails.
    """
    texts = [[str(end) for end in pair] for pair in pairs]
    code = f"from layoutsel.building.link_probe import report; report({texts!r})"
    try:
        found = ask(code, "the links between devices", {})
    except LayoutselError as error:
        device = next(end for pair in pairs for end in pair if not end.is_host)
        raise DeviceError(str(error), device=device) from error
    return from_json(MeasuredLinks, found, file="probe")


def _stand_ins(identities: Mapping[DeviceId, str]) -> dict[Pair, Pair]:
    """Map each pair of devices with a link to the pair that is measured for it."""
    alike = first_alike(identities)
    devices = (HOST_DEVICE, *sorted(identities))
    pairs = (pair for pair in itertools.permutations(devices, 2) if is_direct(*pair))
    return {pair: pair_alike(*pair, alike) for pair in pairs}


def _spread(found: MeasuredLinks, stand_ins: Mapping[Pair, Pair]) -> Iterator[DeviceLink]:
    """Yield the link of each pair, with the rates of its measured pair."""
    measured = {(link.source, link.destination): link for link in found.links}
    for (source, destination), stand_in in stand_ins.items():
        yield replace(measured[stand_in], source=source, destination=destination)


def _name(identities: Mapping[DeviceId, str]) -> str:
    told = "\n".join(f"{device} {name}" for device, name in sorted(identities.items()))
    return f"links-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
