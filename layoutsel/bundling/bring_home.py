"""Import of a device's results into the local store of measurements."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from layoutsel import documents
from layoutsel.bundling.profile import combined, machine_profile
from layoutsel.compile.versions import all_versions
from layoutsel.cost.samples import MachineProfile
from layoutsel.cost.scopes import DEVICE, kernel_of
from layoutsel.cost.store import Context, Store, default_path
from layoutsel.device import results as results_of
from layoutsel.device.results import DeployedResult, Results
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import parse_placed_unit, placed_unit
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BroughtHome:
    """Summary of an import."""

    model: str
    """Name of the model."""
    measurements: int
    """Number of successful measurements."""
    failures: int
    """Number of failed measurements."""
    machine: str
    """Description of the device, as :meth:`layoutsel.device.machine.Machine.__str__`."""
    machine_file: Path | None
    """File for ``layoutsel plan --machine``; None if no candidates were measured."""
    complete: bool
    """True if everything in the bundle was measured."""
    deployed: DeployedResult | None
    """Result of the whole model; None if the bundle had none."""


def bring_home(file: Path, cache: Path | None = None) -> BroughtHome:
    """Store all results of a file, or none; a repeated import changes nothing.

    Parameters
    ----------
    file
        File that ``layoutsel-measure`` wrote.
    cache
        File of the store; the default one if None.

    Raises
    ------
    LayoutselError
        If the file is not a file of results or damaged, or the store cannot be written.
    """
    found = results_of.load(file)
    if changed := _changed(found):
        logger.warning(
            "%s: measured with other versions of %s than those here, whose plans will not use it: "
            "bundle the model again",
            file,
            ", ".join(changed),
        )
    path = cache or default_path()
    outcomes = [one.timing for one in found.candidates]
    outcomes += [one.timing for one in found.boundaries]
    return BroughtHome(
        model=found.model,
        measurements=len(outcomes) - outcomes.count(None),
        failures=outcomes.count(None),
        machine=str(found.machine.described),
        machine_file=_kept(found, path) if outcomes else None,
        complete=found.complete,
        deployed=found.deployed,
    )


def _changed(found: Results) -> list[str]:
    now = all_versions()
    return sorted(name for name in now if found.versions.get(name) != now[name])


def _kept(found: Results, path: Path) -> Path:
    """Store the measurements, and the machine in a file in the same folder; returns that file."""
    profile = machine_profile(found)
    described = path.with_name(f"machine-{profile.machine.fingerprint}-{found.threads}.json")
    if described.exists():
        profile = combined(MachineProfile.load(described), profile)
    with Store(_context(found, profile), path, announce=False) as store:
        with store.transaction():
            _keep(found, profile, store)
            profile.save(described)
        if not store.is_kept:
            raise LayoutselError(
                f"cannot keep the measurements of {found.model} in {path}: the file is not "
                "writable, or another process holds its lock; try again after that has ended"
            )
    return described


def _context(found: Results, profile: MachineProfile) -> Context:
    """The machine with all its devices."""
    identities = {
        f"{_placed(DeviceId.named(name))}:{DEVICE}": device.name
        for name, device in profile.devices.items()
    }
    return Context(
        machine=found.machine.described.fingerprint,
        versions={**found.versions, **identities},
        threads=found.threads,
    )


def _keep(found: Results, profile: MachineProfile, store: Store) -> None:
    """Keep what units on the host and on the machine's devices took."""
    devices = {HOST_DEVICE, *map(DeviceId.named, profile.devices)}
    described = documents.to_json(profile)
    store.describe_machine({**described.pop("machine"), **described})
    for work in found.workloads:
        store.describe(work)
    kernels = {work.key: kernel_of(work) for work in found.workloads}
    for one in found.candidates:
        if _runs(devices, one.decision.placed_unit):
            store.put(one.key, one.decision, one.outcome, kernels.get(one.key, ""))
    for other in found.boundaries:
        ends = (other.source, other.destination) if other.kind == "crossing" else ()
        if other.timing is not None and _runs(devices, *ends):
            store.put_boundary(
                other.kind, other.source, other.destination, other.tensor, other.timing
            )


def _runs(devices: Collection[DeviceId], *placed_units: str) -> bool:
    parsed = map(parse_placed_unit, placed_units)
    return all(unit in BACKENDS and device in devices for unit, device in parsed)


def _placed(device: DeviceId) -> str:
    """A device as scopes name it, by the unit of its kind."""
    return placed_unit(device.kind, device.node, device.index)
