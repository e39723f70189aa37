"""Common steps of making bundles."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layoutsel.bundling.compile import Order
from layoutsel.bundling.pool import Compiled, OnCompiled, compile_all
from layoutsel.bundling.targets import architecture, features
from layoutsel.compile.session import Session
from layoutsel.compile.versions import all_versions
from layoutsel.core.workload import Workload
from layoutsel.device.manifest import (
    SCHEMA_VERSION,
    BoundaryEntry,
    CandidateEntry,
    Deployed,
    Manifest,
    ProgramEntry,
    Requirements,
    Unbuilt,
)
from layoutsel.device.outcome import Failure
from tvm_passes.cpu import host_target
from tvm_passes.decision import parse_placed_unit
from tvm_passes.errors import LayoutselError
from tvm_passes.gpu.target import device_target


@dataclass(frozen=True)
class Making:
    """A bundle in the making."""

    session: Session
    """Session of the model and of the bundle's machine."""
    folder: Path
    """Folder for the bundle's members."""
    compiler: str | None = None
    """C++ compiler that links for the machine; this machine's if None."""
    on_compiled: OnCompiled | None = None
    """Called after each compiled program."""

    def compile(
        self, asked: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> tuple[ProgramEntry, list[Compiled]]:
        """Compile the reference kernel, and the programs of labelled requests.

        Parameters
        ----------
        asked
            Label and request of each program.

        Returns
        -------
        tuple
            The reference kernel, and the programs or the failure of each request.

        Raises
        ------
        LayoutselError
            If the reference kernel fails to build.
        """
        labels = ["the reference kernel"]
        requests = [{"kind": "reference", "threads": self.session.threads}]
        labels += [label for label, _ in asked]
        orders = [self._order(request) for request in (*requests, *(r for _, r in asked))]
        reference, *rest = compile_all(orders, labels, self.on_compiled)
        if isinstance(reference, Failure):
            raise LayoutselError(f"cannot compile for that machine: {reference.reason}")
        return reference[0], rest

    def _order(self, request: Mapping[str, Any]) -> Order:
        machine = self.session.cross_target
        devices = machine.devices if machine else {}
        return Order(
            request=request,
            host=_exported(machine.host) if machine else None,
            devices={kind: _exported(target) for kind, target in devices.items()},
            folder=self.folder,
            compiler=self.compiler,
        )


def manifest_of(
    session: Session,
    *,
    reference: ProgramEntry,
    candidates: tuple[CandidateEntry, ...] = (),
    boundaries: tuple[BoundaryEntry, ...] = (),
    unbuilt: tuple[Unbuilt, ...] = (),
    workloads: Iterable[Workload] = (),
    deployed: Deployed | None = None,
    placed_units: Collection[str] | None = None,
) -> Manifest:
    """Make the manifest of a bundle for a device that has all of `placed_units`.

    They are units as decisions write them, such as ``cuda@1``; by default all of the session.
    """
    used = [parse_placed_unit(unit) for unit in placed_units or session.placed_units]
    devices = sorted({device for _, device in used if not device.is_host})
    with session.generating():
        host = host_target()
        targets = {str(host.kind.name): str(host)}
        targets |= {
            one.target_name: str(device_target(one.target_kind, index=one.index)) for one in devices
        }
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=session.model.name,
        model_hash=session.model.content_hash,
        targets=targets,
        requires=Requirements(
            architecture=architecture(host),
            features=features(host),
            units=tuple(sorted({unit for unit, _ in used})),
            devices=tuple(device.target_name for device in devices),
            threads=session.threads,
            versions=all_versions(),
        ),
        reference=reference,
        candidates=candidates,
        boundaries=boundaries,
        unbuilt=unbuilt,
        workloads=tuple({work.key: work for work in workloads}.values()),
        deployed=deployed,
    )


def _exported(target: Any) -> dict[str, Any]:
    return {name: _plain(value) for name, value in target.export().items()}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else [str(item) for item in value]
