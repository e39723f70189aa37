"""Links of this machine: measured once, read from the user's cache folder afterwards."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layoutsel.cost.alike import first_alike, pair_alike
from layoutsel.cost.links import Link
from layoutsel.cost.probing import ask, kept, remembered
from layoutsel.documents import from_json
from layoutsel.errors import DeviceError
from tvm_passes.devices import HOST_DEVICE, DeviceId, is_direct
from tvm_passes.errors import LayoutselError

Pair = tuple[DeviceId, DeviceId]


@dataclass(frozen=True, kw_only=True)
class MeasuredLinks:
    """Links as a probe measured them."""

    links: tuple[Link, ...]


def machine_links(
    identities: Mapping[DeviceId, str], *, folder: Path | None = None
) -> tuple[Link, ...]:
    """Links between the host and the devices of this machine, and between devices of one kind.

    Of devices that are alike one pair is measured. The first call measures, later ones read from `folder`.

    Parameters
    ----------
    identities
        Everything that measurements depend on, by device.

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
) -> tuple[Link, ...]:
    """The same where they were measured before, else none."""
    found = kept(MeasuredLinks, _name(identities), folder)
    return () if found is None else tuple(_spread(found, _stand_ins(identities)))


def probe_links(pairs: Sequence[Pair]) -> MeasuredLinks:
    """Measure copies in a process of their own; takes about a second for each pair.

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
    """Each pair of devices that a link joins, with the pair to measure for it."""
    alike = first_alike(identities)
    devices = (HOST_DEVICE, *sorted(identities))
    pairs = (pair for pair in itertools.permutations(devices, 2) if is_direct(*pair))
    return {pair: pair_alike(*pair, alike) for pair in pairs}


def _spread(found: MeasuredLinks, stand_ins: Mapping[Pair, Pair]) -> Iterator[Link]:
    """Yield the link of each pair, as measured for its stand-in."""
    measured = {(link.source, link.destination): link for link in found.links}
    for (source, destination), stand_in in stand_ins.items():
        yield replace(measured[stand_in], source=source, destination=destination)


def _name(identities: Mapping[DeviceId, str]) -> str:
    told = "\n".join(f"{device} {name}" for device, name in sorted(identities.items()))
    return f"links-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
