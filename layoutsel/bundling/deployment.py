"""Bundles that deploy a plan: the whole model, a sample and its expected results."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from layoutsel.building.build import Lowered, generate_code
from layoutsel.bundling.making import Making, manifest_of
from layoutsel.bundling.targets import features
from layoutsel.bundling.write import write_archive
from layoutsel.compile.legality import check_legal
from layoutsel.compile.plan_code import header_of
from layoutsel.compile.session import Session
from layoutsel.compile.verification import Reference, reference_of
from layoutsel.device.artifact_header import check_name
from layoutsel.device.entry_points import result_names
from layoutsel.device.manifest import CheckEntry, Deployed, Manifest
from layoutsel.planning.check_fits import check_fits
from layoutsel.planning.plan import Plan
from layoutsel.runtime import artifact
from layoutsel.runtime.arrays import bits_of
from layoutsel.runtime.linking import export_library
from tvm_passes.ir import tensor_types

_MODEL, _DATA = "lib/model.so", "data"
"""Artifact and folder of the sample within the bundle."""


def write_deployment(making: Making, plan: Plan, path: Path) -> Manifest:
    """Build a plan for the session's machine and write a bundle, which verifies itself there.

    Parameters
    ----------
    making
        Session and folder of the bundle.
    plan
        Plan to build.
    path
        File to write.

    Raises
    ------
    PlanMismatch, IllegalDecision
        If the plan is for another model, or holds a decision that the machine does not support.
    """
    session = making.session
    ids = session.graph.ids
    check_fits(plan, model_hash=session.model.content_hash, ids=ids)
    check_legal(session, plan.decisions)
    reference, _ = making.compile(())
    results = _write_model(making, plan)
    manifest = manifest_of(
        session,
        reference=reference,
        deployed=_write_sample(making, reference_of(session), results),
        placed_units={decision.placed_unit for decision in plan.decisions.values()},
    )
    write_archive(making.folder, manifest, path)
    return manifest


def _write_model(making: Making, plan: Plan) -> int:
    """Write the artifact into the bundle's folder; returns its number of results with logits."""
    path = making.folder / _MODEL
    path.parent.mkdir(exist_ok=True)
    return _results(write_artifact(making.session, plan, path, making.compiler))


def write_artifact(
    session: Session, plan: Plan, path: Path, compiler: str | None = None
) -> Lowered:
    """Build a plan for the session's machine, which may be another one, and write its artifact.

    Parameters
    ----------
    session
        Session of the model and of the machine.
    plan
        Plan to build, for that machine.
    path
        File to write.
    compiler
        C++ compiler that links for the machine; this machine's if None.

    Raises
    ------
    ArtifactError
        If the file's name does not end in ``.so``.
    BuildError
        If the CPU's code cannot be generated.
    LayoutselError
        If linking fails.
    WriteError
        If `path` cannot be written.
    """
    check_name(path)
    lowered = session.lower(plan.decisions, plan.order, plan.held_by_stages)
    with session.generating():
        executable = generate_code(lowered.module, lowered.target)
    header = {
        **header_of(session, plan, lowered),
        "features": list(features(lowered.target)),
        "machine": plan.machine,
    }
    with tempfile.TemporaryDirectory(prefix="layoutsel-") as folder:
        library = Path(folder) / "library.so"
        export_library(executable, library, compiler=compiler)
        model = artifact.ArtifactPart(library=library, weights=lowered.weights, header=header)
        artifact.write(path, model)
    return lowered


def _results(lowered: Lowered) -> int:
    if not lowered.entries:
        return len(tensor_types(lowered.module["main"].body.ty))
    return len(result_names(lowered.entries))


def _write_sample(making: Making, reference: Reference, results: int) -> Deployed:
    session, folder = making.session, making.folder / _DATA
    folder.mkdir()
    sample = reference.samples[0]
    outputs = [spec.name for spec in session.model.outputs]
    expected = reference.expected(sample, outputs, session.precision.bound)
    names = expected.names(results)
    standard = expected.portable(names)
    each = zip(names, standard.values, standard.tolerances, standard.attainable, strict=False)
    checks = tuple(
        CheckEntry(
            output=name,
            dtype=str(want.dtype),
            file=_write(folder, f"output{index}", want),
            tolerance=tolerance,
            attainable=attainable,
        )
        for index, (name, want, tolerance, attainable) in enumerate(each)
    )
    inputs = [_write(folder, f"input{i}", value) for i, value in enumerate(sample.inputs)]
    return Deployed(file=_MODEL, inputs=tuple(inputs), reference=standard.reference, checks=checks)


def _write(folder: Path, name: str, value: np.ndarray) -> str:
    file = folder / f"{name}.bin"
    file.write_bytes(np.ascontiguousarray(bits_of(value)).tobytes())
    return f"{folder.name}/{file.name}"
